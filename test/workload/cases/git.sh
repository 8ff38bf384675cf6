# init, commit, branch, merge, clone, fsck, gc of a 2000-file tree.
set -eu
command -v git >/dev/null || { echo "no git" >&2; exit 77; }
export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z' GIT_CONFIG_GLOBAL=/dev/null
export GIT_AUTHOR_NAME=n GIT_AUTHOR_EMAIL=e@example.org GIT_COMMITTER_NAME=n GIT_COMMITTER_EMAIL=e@example.org
git init -q -b main tree; cd tree
for d in $(seq 20); do mkdir d$d; for f in $(seq 100); do echo "file $d $f" >d$d/f$f; done; done
git add .; git commit -qm first; git rev-parse HEAD
git checkout -q -b side; echo change >>d1/f1; git commit -qam side; git checkout -q main; echo other >>d2/f2; git commit -qam other
git merge -q side -m merge; git log --oneline --graph | cat
git status --short; git diff HEAD~1 --stat | cat
cd ..; git clone -q tree clone; cd clone; git fsck --no-progress; git gc -q; git count-objects -v | grep -E '^(count|packs|in-pack)'
git grep -c 'file 7 7$' | cat; git archive HEAD | tar t | wc -l
