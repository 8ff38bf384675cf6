command -v go >/dev/null || { echo "no go" >&2; exit 77; }
set -eu
export GOCACHE=$WORK/cache GOPATH=$WORK/gopath GOFLAGS=-mod=mod GOTOOLCHAIN=local
mkdir m; cd m
cat >go.mod <<'EOF'
module m
go 1.18
EOF
cat >main.go <<'EOF'
package main

import ("fmt"; "io"; "net"; "os"; "os/exec"; "os/signal"; "sync"; "syscall"; "time")

func main() {
	var wg sync.WaitGroup; ch := make(chan int, 10); total := 0; done := make(chan bool)
	go func() { for v := range ch { total += v }; done <- true }()
	for i := 0; i < 1000; i++ { wg.Add(1); go func(n int) { defer wg.Done(); time.Sleep(time.Microsecond); ch <- n }(i) }
	wg.Wait(); close(ch); <-done; fmt.Println("goroutines", total)
	out, _ := exec.Command("echo", "child").Output(); fmt.Print(string(out))
	l, err := net.Listen("tcp", "127.0.0.1:0"); if err != nil { fmt.Println(err); return }
	go func() { c, _ := l.Accept(); io.Copy(c, c); c.Close() }()
	c, _ := net.Dial("tcp", l.Addr().String()); c.Write([]byte("echo")); c.(*net.TCPConn).CloseWrite(); b, _ := io.ReadAll(c); fmt.Println(string(b))
	s := make(chan os.Signal, 1); signal.Notify(s, syscall.SIGUSR1); syscall.Kill(os.Getpid(), syscall.SIGUSR1); fmt.Println(<-s)
	os.WriteFile("f", []byte("x"), 0600); i, _ := os.Stat("f"); fmt.Println(i.Mode(), i.Size())
	defer func() { fmt.Println("recovered", recover() != nil) }(); var p *int; fmt.Println(*p)
}
EOF
go run main.go
