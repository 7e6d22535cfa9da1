package main

import (
	"os"
	"os/signal"
	"syscall"
)

// The first process of a pod: it holds the namespaces, and ends when it is told to.
func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
}
