// Command sluice is an event routing bus: see the README.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
	_ "time/tzdata" // schedules have zones, and the machine may have none

	"sluice/cmd/internal/cli"
)

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		exitAtOnce(signals, time.Now())
	}()
	code := cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	os.Exit(code)
}

// sameSignal is how close together two signals count as one: a terminal, a
// service manager and timeout(1) send it to the process and to its group.
const sameSignal = 500 * time.Millisecond

// exitAtOnce ends the process when a second signal comes: whoever sends it does
// not want to wait for what is under way.
func exitAtOnce(signals <-chan os.Signal, first time.Time) {
	for sig := range signals {
		if time.Since(first) < sameSignal {
			continue
		}
		code := 1
		if n, ok := sig.(syscall.Signal); ok {
			code = 128 + int(n)
		}
		os.Exit(code)
	}
}
