// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// invalid is the error for a reference that cannot be one.
func invalid(op, ref, reason, hint string) error {
	return &Error{Class: Invalid, Op: op, Ref: ref, Reason: reason, Hint: hint}
}

// parsePull parses what is to be pulled. Plain http is part of ggcr's references.
func (c *Client) parsePull(ref string) (name.Reference, error) {
	r, err := name.ParseReference(ref)
	if err != nil {
		return nil, invalid("pull", ref, escape(err.Error()), "")
	}
	if c.plain(r.Context().RegistryStr(), pulling) {
		return name.ParseReference(ref, name.Insecure)
	}
	return r, nil
}

// parsePush parses a destination; without a tag it means latest.
func (c *Client) parsePush(op, dest string) (name.Tag, error) {
	if strings.Contains(dest, "@") {
		return name.Tag{}, invalid(op, dest, "a destination cannot have a digest",
			"the digest is the outcome of the build; name a tag, or nothing for latest")
	}
	t, err := name.NewTag(dest)
	if err != nil {
		return name.Tag{}, invalid(op, dest, escape(err.Error()), "")
	}
	if c.plain(t.RegistryStr(), pushing) {
		return name.NewTag(dest, name.Insecure)
	}
	return t, nil
}

// destinations parses all destinations, each once, in the order given.
func (c *Client) destinations(dests []string) ([]name.Tag, error) {
	var tags []name.Tag
	seen := map[string]bool{}
	for _, d := range dests {
		t, err := c.parsePush("push", d)
		if err != nil {
			return nil, err
		}
		if !seen[t.Name()] {
			seen[t.Name()] = true
			tags = append(tags, t)
		}
	}
	if len(tags) == 0 {
		return nil, invalid("push", "", "no destination", "")
	}
	return tags, nil
}

// candidates lists where to look for a reference: its mirrors in order, then the
// registry itself.
func (c *Client) candidates(ref name.Reference) ([]name.Reference, error) {
	home := canonicalHost(ref.Context().RegistryStr())
	var mirrors []string
	for host, list := range c.o.Maps {
		if canonicalHost(host) == home {
			mirrors = append(mirrors, list...)
		}
	}
	if home == name.DefaultRegistry {
		mirrors = append(mirrors, c.o.Mirrors...)
	}
	var found []name.Reference
	for _, m := range mirrors {
		_, rest, isURL := strings.Cut(m, "://")
		if !isURL {
			rest = m
		}
		sep := ":"
		if _, ok := ref.(name.Digest); ok {
			sep = "@"
		}
		path := strings.TrimSuffix(rest, "/") + "/" + ref.Context().RepositoryStr() + sep + ref.Identifier()
		r, err := c.parsePull(path)
		if err != nil {
			return nil, invalid("pull", ref.Name(), "the mirror "+escape(m)+" is not host or host/path", "")
		}
		found = append(found, r)
	}
	if len(found) == 0 || !c.o.SkipDefaultFallback {
		found = append(found, ref)
	}
	return found, nil
}
