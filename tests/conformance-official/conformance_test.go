// Package conformance runs the official suite of Gateway API; scripts/conformance builds and starts it.
package conformance

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

func TestConformance(t *testing.T) {
	conformance.RunConformance(t)
}
