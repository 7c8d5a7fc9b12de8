//go:build !unix

package sinks

import "net"

// socket is what cannot be reached under a connection here.
type socket struct{}

func socketOf(net.Conn) *socket { return nil }

func (*socket) swap([]byte, []byte) (int, []byte, error) { panic("there is no socket") }

func (*socket) quiet() bool { panic("there is no socket") }
