// A server with a goroutine per request: text, work for the processor, children, a counter kept in /data.
package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"sort"
	"sync"
	"syscall"
	"time"
)

const kept = "/data/count"

var lock sync.Mutex

// count adds one to the number in the file, which is replaced whole.
func count() (int, error) {
	lock.Lock()
	defer lock.Unlock()
	number := 0
	if text, err := os.ReadFile(kept); err == nil {
		fmt.Sscan(string(text), &number)
	}
	number++
	file, err := os.CreateTemp("/data", "new")
	if err != nil {
		return 0, err
	}
	fmt.Fprintln(file, number)
	if err := file.Sync(); err != nil {
		return 0, err
	}
	file.Close()
	return number, os.Rename(file.Name(), kept)
}

func main() {
	http.HandleFunc("/", func(reply http.ResponseWriter, _ *http.Request) { fmt.Fprint(reply, "hello") })
	http.HandleFunc("/count", func(reply http.ResponseWriter, _ *http.Request) {
		number, err := count()
		if err != nil {
			http.Error(reply, err.Error(), 500)
			return
		}
		fmt.Fprintln(reply, number)
	})
	http.HandleFunc("/digest", func(reply http.ResponseWriter, request *http.Request) {
		digest := sha256.New()
		io.Copy(digest, request.Body)
		fmt.Fprintf(reply, "%x\n", digest.Sum(nil))
	})
	// Garbage, sorted by several goroutines at once that wait for each other.
	http.HandleFunc("/work", func(reply http.ResponseWriter, _ *http.Request) {
		sums := make(chan int)
		for part := 0; part < 4; part++ {
			go func(part int) {
				words := make([]string, 0, 500)
				for i := 0; i < 500; i++ {
					words = append(words, fmt.Sprint((i*7919+part)%10007))
				}
				sort.Strings(words)
				sums <- len(words[0])
			}(part)
		}
		for part := 0; part < 4; part++ {
			<-sums
		}
		fmt.Fprint(reply, "worked")
	})
	http.HandleFunc("/child", func(reply http.ResponseWriter, _ *http.Request) {
		output, err := exec.Command("echo", "from", "a", "child").Output()
		if err != nil {
			http.Error(reply, err.Error(), 500)
			return
		}
		reply.Write(output)
	})
	http.HandleFunc("/file", func(reply http.ResponseWriter, request *http.Request) {
		http.ServeFile(reply, request, "/app/server")
	})
	server := http.Server{Addr: ":8000"}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() { log.Print(server.ListenAndServe()) }()
	<-stop
	wait, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	server.Shutdown(wait)
	log.Print("stopped")
}
