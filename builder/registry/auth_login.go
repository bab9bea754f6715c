// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// Login is a user and a password for exactly one host.
type Login struct {
	// Host is host[:port]. When it is empty, the Variable says which host it is.
	Host string
	// Variable is what the names of the two variables begin with, for messages:
	// KANIKO_GHCR_IO of KANIKO_GHCR_IO_USER and KANIKO_GHCR_IO_PASSWORD.
	Variable string
	User     string
	Password string
}

const variablePrefix = "KANIKO_"

// hostOfVariable tells which host the variables that begin with a name are for.
// A name has one meaning, so that no two hosts can share a credential:
//
//   - If after KANIKO_ every underscore is followed by two hexadecimal digits in
//     upper case that stand for one of . - : [ ] and _, these three characters are
//     that one: MY_2DREGISTRY_2EIO_3A5000 is my-registry.io:5000.
//   - Otherwise every underscore is a dot: GHCR_IO is ghcr.io. A host with anything
//     but letters, digits and dots has no name of this kind: kaniko read one as both
//     my-registry.io and my.registry.io, and whoever owns the other got the password.
func hostOfVariable(variable string) (host string, ok bool) {
	rest, ok := strings.CutPrefix(variable, variablePrefix)
	if !ok || rest == "" || strings.Trim(rest, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" {
		return "", false
	}
	if host, ok := decodeHost(rest); ok {
		return canonicalHost(host), true
	}
	return canonicalHost(strings.ReplaceAll(rest, "_", ".")), true
}

const encoded = ".-:[]_"

func decodeHost(s string) (string, bool) {
	var b strings.Builder
	for {
		plain, rest, more := strings.Cut(s, "_")
		b.WriteString(plain)
		if !more {
			return b.String(), true
		}
		if len(rest) < 2 || strings.ToUpper(rest[:2]) != rest[:2] {
			return "", false
		}
		c, err := hex.DecodeString(rest[:2])
		if err != nil || !strings.ContainsRune(encoded, rune(c[0])) {
			return "", false
		}
		b.Write(c)
		s = rest[2:]
	}
}

// variableOfHost is the name, up to _USER and _PASSWORD, that always works for a
// host. [hostOfVariable] is its inverse.
func variableOfHost(host string) string {
	var b strings.Builder
	b.WriteString(variablePrefix)
	for _, c := range []byte(strings.ToUpper(canonicalHost(host))) {
		if c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02X", c)
		}
	}
	return b.String()
}

// loginSources gives each login to its host and no other. Of two for one host
// the one under the name that always works comes first.
func loginSources(logins []Login) []source {
	var exact, others []source
	for _, l := range logins {
		host := canonicalHost(l.Host)
		if l.Host == "" {
			var ok bool
			if host, ok = hostOfVariable(l.Variable); !ok {
				continue
			}
		}
		s := source{name: l.Variable, find: l.finder(host)}
		if l.Host == "" && l.Variable == variableOfHost(host) {
			exact = append(exact, s)
		} else {
			others = append(others, s)
		}
	}
	return slices.Concat(exact, others)
}

func (l Login) finder(host string) func(context.Context, name.Repository) answer {
	return func(_ context.Context, repo name.Repository) answer {
		switch {
		case canonicalHost(repo.RegistryStr()) != host:
			return answer{}
		case l.User == "":
			return answer{why: "no user"}
		case l.Password == "":
			return answer{why: "no password"}
		}
		return answer{auth: authn.FromConfig(authn.AuthConfig{Username: l.User, Password: l.Password})}
	}
}
