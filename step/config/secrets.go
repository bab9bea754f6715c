// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/tonistiigi/go-csvvalue"
)

// Secret is something that a RUN may see while it runs and that never becomes
// part of the image. It comes from a file or from the environment: one of File
// and Env is set.
type Secret struct {
	ID string
	// File is a path, absolute or relative to the working directory. Whether
	// it is there shows when an instruction asks for the secret.
	File string
	// Env is the name of a variable and Value what it holds; nil if it is not
	// set, and then the secret is not found by an instruction that needs it.
	Env   string
	Value []byte `json:"-"`
}

// String says where the secret comes from, never what it is.
func (s Secret) String() string {
	if s.Env != "" {
		return fmt.Sprintf("id=%s,env=%s", s.ID, s.Env)
	}
	return fmt.Sprintf("id=%s,src=%s", s.ID, s.File)
}

// GoString keeps %#v from showing more than String does.
func (s Secret) GoString() string { return s.String() }

// Secrets is a list of what docker build --secret takes.
type Secrets []Secret

// Decode implements envconfig.Decoder. It does not read the environment, so
// that an item of an id alone has neither File nor Env afterwards. The errors
// give numbers of items and names of keys, never what was written: people put
// the secret itself there by mistake.
func (s *Secrets) Decode(value string) error {
	*s = nil
	list, err := items(value)
	if err != nil {
		return err
	}
	var errs []error
	for n, item := range list {
		secret, err := parseSecret(strings.TrimSpace(item))
		if err == nil && slices.ContainsFunc(*s, func(other Secret) bool { return other.ID == secret.ID }) {
			err = errors.New("an earlier item has the same id")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("item %d: %w", n+1, err))
			continue
		}
		*s = append(*s, secret)
	}
	return errors.Join(errs...)
}

func parseSecret(item string) (Secret, error) {
	given, err := secretKeys(item)
	if err != nil {
		return Secret{}, err
	}
	s := Secret{ID: given["id"], File: given["src"], Env: given["env"]}
	switch {
	case s.ID == "":
		return Secret{}, errors.New("no id; " + secretForm())
	case s.File != "" && s.Env != "":
		return Secret{}, errors.New("it has both src and env; give one of them")
	}
	switch given["type"] {
	case "":
	case "file":
		if s.Env != "" {
			return Secret{}, errors.New("type=file does not go with env; give src")
		}
		s.File = cmp.Or(s.File, s.ID)
	case "env":
		// docker build takes the name of the variable from either key.
		s.Env, s.File = cmp.Or(s.Env, s.File, s.ID), ""
	default:
		return Secret{}, errors.New("its type is not known; there are: file, env")
	}
	return s, nil
}

// secretKeys splits one item as docker build does: fields are CSV, so that a
// quoted one may hold commas.
func secretKeys(item string) (map[string]string, error) {
	fields, err := csvvalue.Fields(item, nil)
	if err != nil {
		return nil, errors.New("a quote is open or out of place; " + secretForm())
	}
	given := map[string]string{}
	for _, field := range fields {
		key, value, _ := strings.Cut(field, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		if key == "source" {
			key = "src"
		}
		if !slices.Contains([]string{"id", "src", "env", "type"}, key) {
			return nil, errors.New("a part of it is none of id, src, source, env and type; " + secretForm())
		}
		if _, twice := given[key]; twice {
			return nil, fmt.Errorf("%s is there twice", key)
		}
		if value == "" {
			return nil, fmt.Errorf("%s has no value", key)
		}
		given[key] = value
	}
	return given, nil
}

func secretForm() string { return "write id=ID,src=FILE or id=ID,env=VARIABLE" }

// resolve reads the variables. An id alone is the variable of that name, or
// else the file, as docker build has it.
func (s Secrets) resolve() {
	for i := range s {
		if s[i].File != "" {
			continue
		}
		name := cmp.Or(s[i].Env, s[i].ID)
		value, found := os.LookupEnv(name)
		switch {
		case found:
			s[i].Env, s[i].Value = name, []byte(value)
		case s[i].Env == "":
			s[i].File = s[i].ID
		}
	}
}

// Agent is an SSH agent that RUN may use: the socket of one that runs, or
// private keys that the builder serves itself.
type Agent struct {
	ID string
	// Paths is one socket, or one or several files with keys.
	Paths []string
}

// Agents is a list of what docker build --ssh takes.
type Agents []Agent

// Decode implements envconfig.Decoder. It does not read the environment, so
// that an item of an id alone has no Paths afterwards. The errors give numbers
// of items: people put the key itself there by mistake.
func (a *Agents) Decode(value string) error {
	*a = nil
	list, err := items(value)
	if err != nil {
		return err
	}
	var errs []error
	for n, item := range list {
		agent, err := parseAgent(strings.TrimSpace(item))
		if err == nil && slices.ContainsFunc(*a, func(other Agent) bool { return other.ID == agent.ID }) {
			err = errors.New("an earlier item has the same id; several keys of one id are joined by commas")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("item %d: %w", n+1, err))
			continue
		}
		*a = append(*a, agent)
	}
	return errors.Join(errs...)
}

func parseAgent(item string) (Agent, error) {
	id, paths, _ := strings.Cut(item, "=")
	agent := Agent{ID: strings.TrimSpace(id)}
	if agent.ID == "" {
		return agent, errors.New("no id; write default=SOCKET or default=KEY")
	}
	if paths != "" {
		agent.Paths = strings.Split(paths, ",")
	}
	for _, p := range agent.Paths {
		switch {
		case p == "":
			return agent, errors.New("an empty path; write ID=SOCKET or ID=KEY,KEY")
		case strings.HasPrefix(p, "raw="):
			return agent, errors.New("raw is not supported: an agent is asked for public keys and signatures, nothing else")
		}
	}
	return agent, nil
}

// resolve gives the agents that were named by an id alone the one of the
// environment, if there is any.
func (a Agents) resolve(socket string) {
	for i := range a {
		if len(a[i].Paths) == 0 && socket != "" {
			a[i].Paths = []string{socket}
		}
	}
}

func (c *Config) checkAgents() error {
	var errs []error
	for i, a := range c.SSH {
		if len(a.Paths) == 0 {
			errs = append(errs, fmt.Errorf("KANIKO_SSH: item %d: an id alone is the agent of SSH_AUTH_SOCK, which is not set; write ID=SOCKET or ID=KEY", i+1))
		}
	}
	return errors.Join(errs...)
}
