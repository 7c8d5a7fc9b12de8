package app

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// notify tells the service manager how the process is doing (sd_notify(3)): one
// datagram to the socket that it gave. Without one it does nothing.
func (a *App) notify(state string) {
	if a.opts.Notify == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: a.opts.Notify, Net: "unixgram"})
	if err != nil {
		a.log.Warn("cannot reach the service manager", "err", err)
		return
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte(state)); err != nil {
		a.log.Warn("cannot tell the service manager", "state", state, "err", err)
	}
}

// notifyReloading says that a reload begins; with Type=notify-reload systemd wants
// to know when by the monotonic clock.
func (a *App) notifyReloading() {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		a.notify("RELOADING=1")
		return
	}
	a.notify(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000))
}
