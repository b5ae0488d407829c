// A small HTTP server: one static program, which brings all that it needs and asks OSv by system calls alone.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
)

func main() {
	port := flag.String("port", "8080", "the port to listen on")
	flag.Parse()

	release := os.Getenv("OSVDEPLOY_RELEASE")
	http.HandleFunc("/", func(answer http.ResponseWriter, request *http.Request) {
		if release != "" {
			answer.Header().Set("x-release", release)
		}
		fmt.Fprintf(answer, "hello from %s on %s\n", runtime.Version(), os.Getenv("OSV_VERSION"))
	})

	listener, err := net.Listen("tcp4", ":"+*port)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listens on %s\n", *port)
	log.Fatal(http.Serve(listener, nil))
}
