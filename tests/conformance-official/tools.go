//go:build tools

// Names the program that the suite's pods run, so that go.mod knows its modules.
package conformance

import _ "sigs.k8s.io/gateway-api/conformance/echo-basic"
