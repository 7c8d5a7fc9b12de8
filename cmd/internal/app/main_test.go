package app_test

import (
	"testing"

	"go.uber.org/goleak"
)

// Whoever stops a bus wants all of it to be gone.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
