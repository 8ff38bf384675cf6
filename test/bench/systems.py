"""What compare runs programs under: natively, in our sandbox, and in whichever others are installed."""
import json
import os
import re
import shutil
import subprocess
import tempfile

BWRAP = ["--unshare-all", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]


class System:
    """A way to run a program. `missing` says why it cannot be used, for the user; else None."""

    def __init__(self, name, missing=None):
        self.name = name
        self.missing = missing

    def command(self, argv):
        return argv

    def close(self):
        pass


class Prefix(System):
    def __init__(self, name, program, arguments, missing=None):
        super().__init__(name, missing)
        self.prefix = [program] + arguments

    def command(self, argv):
        return self.prefix + argv


class Runc(System):
    """Over the host's root, read-only, as `runsc do` is; what the program writes to /tmp goes to memory."""

    def __init__(self, program):
        super().__init__("runc", None if program else "apt-get install runc")
        self.program = program
        self.directory = None
        self.count = 0
        if self.missing:
            return
        if os.geteuid() != 0:
            self.missing = "needs root"
            return
        self.directory = tempfile.mkdtemp(prefix="bench.runc.", dir="/var/tmp")
        self.root = os.path.join(self.directory, "root")
        os.mkdir(self.root)
        # pivot_root needs a mount point that is not / itself.
        if subprocess.run(["mount", "--bind", "/", self.root]).returncode != 0:
            self.missing = "cannot bind-mount /"
            return
        subprocess.run([program, "spec", "-b", self.directory], check=True)
        with open(os.path.join(self.directory, "config.json")) as config:
            self.config = json.load(config)
        self.config["root"] = {"path": self.root, "readonly": True}
        self.config["process"]["terminal"] = False
        self.config["process"]["env"] = [f"{k}={v}" for k, v in os.environ.items()]
        # What the others' programs have, too: tar restores owners, servers give up root.
        for kind in self.config["process"]["capabilities"].values():
            kind[:] = sorted(set(kind) | {"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_SETUID",
                                          "CAP_SETGID"})
        self.config["process"]["rlimits"] = []
        mounts = [m for m in self.config["mounts"] if m["destination"] != "/sys/fs/cgroup"]
        mounts.append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]})
        self.config["mounts"] = mounts

    def command(self, argv):
        self.count += 1
        bundle = os.path.join(self.directory, f"b{self.count}")
        os.mkdir(bundle)
        self.config["process"]["args"] = argv
        with open(os.path.join(bundle, "config.json"), "w") as config:
            json.dump(self.config, config)
        return [self.program, "run", "-b", bundle, f"ravelin-bench-{os.getpid()}-{self.count}"]

    def close(self):
        if self.directory:
            subprocess.run(["umount", "-l", self.root])
            # One file system only: should the unmount have failed, the host's root is below.
            subprocess.run(["rm", "-rf", "--one-file-system", self.directory])


def gvisor(runsc_ours):
    """PEER_RUNSC, else Debian's package."""
    program = os.environ.get("PEER_RUNSC") or shutil.which("runsc")
    if program and os.path.realpath(program) == os.path.realpath(runsc_ours):
        program = None
    if not program:
        return Prefix("gvisor", "runsc", [], "apt-get install runsc, or PEER_RUNSC=/path/to/runsc")
    arguments = ["--network=none"] + ([] if os.geteuid() == 0 else ["--rootless"]) + ["do"]
    return Prefix("gvisor", program, arguments)


def find(runsc, platform):
    """All of them, native first, ours second."""
    found = lambda name, package, arguments: Prefix(name, shutil.which(name) or name, arguments,
                                                    None if shutil.which(name) else f"apt-get install {package}")
    return [
        System("native"),
        Prefix("ravelin", runsc, ["do", f"--platform={platform}", "--"]),
        Runc(shutil.which("runc")),
        # As root it would give up the capabilities that the others' programs have.
        found("bwrap", "bubblewrap", BWRAP + (["--cap-add", "ALL"] if os.geteuid() == 0 else [])),
        found("proot", "proot", ["-r", "/"]),
        gvisor(runsc),
    ]


def version(system):
    """One line for the head of the table."""
    if system.name in ("native", "ravelin"):
        return None
    program = system.program if isinstance(system, Runc) else system.prefix[0]
    out = subprocess.run([program, "--version"], capture_output=True, text=True)
    found = re.search(r"\d+\.\d+[\w.+~-]*", out.stdout + out.stderr)
    return f"{system.name} {found.group() if found else '?'}"
