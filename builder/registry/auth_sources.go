// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// source is one place that credentials come from. The sources of a Client are
// asked in order; the first that has one for the repository answers.
type source struct {
	name string // for messages: a file, a variable, the login of a cloud
	find func(context.Context, name.Repository) answer
}

// answer is what one source says about one repository. The zero value means that
// the source has nothing to do with its registry.
type answer struct {
	auth authn.Authenticator // nil when the source has none
	from string              // where exactly it is from, where the source's name is not all
	why  string              // why it has none
	err  error               // the failure of a login that somebody has configured
}

// credential is what all sources together say about one repository.
type credential struct {
	auth   authn.Authenticator // anonymous when nobody has one
	source string              // where it is from; "" when nobody has one
	tried  []string            // the others that were asked, each with its reason
	err    error               // the first login that was configured and failed, when nobody else had one
}

// resolve asks the sources.
func resolve(ctx context.Context, sources []source, repo name.Repository) credential {
	c := credential{auth: authn.Anonymous}
	for _, s := range sources {
		a := s.find(ctx, repo)
		from := s.name
		if a.from != "" {
			from = a.from
		}
		switch {
		case a.auth != nil:
			c.auth, c.source, c.err = a.auth, from, nil
			return c
		case a.err != nil:
			c.tried = append(c.tried, from+": "+a.err.Error())
			if c.err == nil {
				c.err = a.err
			}
		case a.why != "":
			c.tried = append(c.tried, from+": "+a.why)
		}
	}
	return c
}

// line is what the log says once about a registry. It holds no secret.
func (c credential) line(host string) string {
	text := "credentials for " + host + " from " + c.source
	if c.source == "" {
		text = "no credentials for " + host
	}
	if len(c.tried) > 0 {
		text += " (" + strings.Join(c.tried, "; ") + ")"
	}
	return text
}

// credentialSources reads what the options name, once: the content of
// DOCKER_AUTH_CONFIG, the file, the logins of single hosts, the clouds. The
// notes are for people who expect more of a file than is done with it.
func credentialSources(o Options, clouds []*cloud) (sources []source, notes []string, err error) {
	add := func(origin string, data []byte) error {
		d, err := parseDockerConfig(data)
		if err != nil {
			return fmt.Errorf("registry credentials: %s: %w", origin, err)
		}
		sources = append(sources, source{name: origin, find: d.finder(clouds)})
		notes = append(notes, d.notes(origin, clouds)...)
		return nil
	}
	if len(o.AuthJSON) > 0 {
		if err := add("DOCKER_AUTH_CONFIG", o.AuthJSON); err != nil {
			return nil, nil, err
		}
	}
	if o.DockerConfig != "" {
		file, data, err := readDockerConfig(o.DockerConfig)
		if err != nil {
			return nil, nil, err
		}
		if file != "" {
			if err := add(file, data); err != nil {
				return nil, nil, err
			}
		}
	}
	sources = append(sources, loginSources(o.Logins)...)
	for _, c := range clouds {
		if slices.Contains(o.Clouds, c.name) {
			sources = append(sources, source{name: c.name, find: func(ctx context.Context, repo name.Repository) answer {
				return c.find(ctx, canonicalHost(repo.RegistryStr()))
			}})
		}
	}
	return sources, notes, nil
}

// finder asks the entries of the file first, then the cloud whose helper it names.
func (d dockerConfig) finder(clouds []*cloud) func(context.Context, name.Repository) answer {
	return func(ctx context.Context, repo name.Repository) answer {
		if a, ok := d.lookup(repo); ok {
			return answer{auth: authn.FromConfig(a)}
		}
		host := canonicalHost(repo.RegistryStr())
		helper := d.helper(host)
		if helper == "" {
			return answer{why: "no entry"}
		}
		c := cloudOf(clouds, helper)
		if c == nil {
			return answer{why: fmt.Sprintf("no entry, and its credential helper %s is not run", helper)}
		}
		if !c.owns(host) {
			return answer{why: fmt.Sprintf("no entry, and %s is for other registries", helper)}
		}
		return c.find(ctx, host)
	}
}

// notes names the helpers that nothing in this program stands in for.
func (d dockerConfig) notes(origin string, clouds []*cloud) []string {
	hosts := map[string][]string{}
	for host, helper := range d.helpers {
		hosts[helper] = append(hosts[helper], host)
	}
	if d.store != "" {
		hosts[d.store] = append(hosts[d.store], "credsStore")
	}
	var notes []string
	for _, helper := range slices.Sorted(maps.Keys(hosts)) {
		if cloudOf(clouds, helper) == nil && !slices.Contains([]string{"env", "gitlab"}, helper) {
			slices.Sort(hosts[helper])
			notes = append(notes, fmt.Sprintf("%s: the credential helper %s (%s) is not run: no program is; put the credential into auths, or set %s and %s",
				origin, escape(helper), escape(strings.Join(hosts[helper], ", ")), "KANIKO_<HOST>_USER", "KANIKO_<HOST>_PASSWORD"))
		}
	}
	return notes
}

// credentialError is a login of a cloud that was configured and failed before the
// registry was asked. Its text is made of what may be shown.
type credentialError struct {
	name   string // of the login
	reason string
	class  Class
}

func (e *credentialError) Error() string { return e.reason }

// needed is the error of a push that has no credential because a login failed.
func needed(host string, err error) error {
	var e *credentialError
	if !errors.As(err, &e) {
		return err
	}
	return &finding{class: e.class, text: fmt.Sprintf("no credentials for %s: %s: %s", host, e.name, e.reason)}
}
