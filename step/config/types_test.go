// SPDX-License-Identifier: Apache-2.0

package config

import (
	"slices"
	"strings"
	"testing"
)

// TestListsThatAreNoJSON holds that an array with a mistake in it does not become one strange item.
func TestListsThatAreNoJSON(t *testing.T) {
	for _, value := range []string{`["a=b"`, `["a=b", 3]`, "[\n  \"a=b\",\n]"} {
		for _, into := range []interface{ Decode(string) error }{new(List), new(Pairs), new(Hosts), new(Secrets), new(Agents)} {
			if err := into.Decode(value); err == nil || !strings.Contains(err.Error(), "JSON array of strings") || strings.Contains(err.Error(), "a=b") {
				t.Errorf("%T of %q: %v", into, value, err)
			}
		}
	}
	setEnv(t, map[string]string{"KANIKO_MODE": "check", "KANIKO_SECRET": `["hunter2"`})
	if _, err := Load(); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the value, which may be a secret: %v", err)
	}
	var l List
	if err := l.Decode("[::1]:5000\n[x]=y"); err != nil || !slices.Equal(l, List{"[::1]:5000", "[x]=y"}) {
		t.Errorf("%q, %v", l, err)
	}
}

func TestSeveralHostsInOneItem(t *testing.T) {
	for _, variable := range []string{"KANIKO_INSECURE_REGISTRY", "KANIKO_SKIP_TLS_VERIFY_REGISTRY", "KANIKO_REGISTRY_MIRROR", "KANIKO_REGISTRY_TOKEN_REALM"} {
		setEnv(t, map[string]string{"KANIKO_MODE": "check", variable: "a.example,b.example"})
		want := variable + "=a.example,b.example: not a registry; write HOST or HOST:PORT; several go one a line"
		if _, err := Load(); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
