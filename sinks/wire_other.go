//go:build !unix

package sinks

import "net"

// quiet cannot look into a connection here.
func quiet(net.Conn) bool { return true }
