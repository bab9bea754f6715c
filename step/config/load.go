// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"
)

// Load reads the environment of the process. It reports everything that is
// wrong with it at once: the error joins one line for each problem, which
// names the variable, the value unless it may be secret, the reason, and what
// to write instead.
//
// An empty variable is an unset one, because Tekton and Argo set every
// parameter. Empty variables are therefore removed from the environment of the
// process, and so are those that cannot be parsed; nothing else in it changes.
// Load is not safe for use while another goroutine reads the environment.
func Load() (*Config, error) { return (&Arguments{}).Load() }

// read is Load after the flags have become variables.
func (a *Arguments) read() (*Config, error) {
	if err := dropEmpty(); err != nil {
		return nil, err
	}
	c := &Config{}
	known := c.variables()
	problems := a.foreign(known)
	for _, g := range c.groups() {
		problems = append(problems, process(g, known)...)
	}
	c.resolve()
	problems = append(problems, c.Validate())
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return c, nil
}

// dropEmpty exists because envconfig takes an empty variable for one that was
// set: it would skip the default and fail on a bool.
func dropEmpty() error {
	for _, entry := range os.Environ() {
		if key, value, _ := strings.Cut(entry, "="); key != "" && value == "" {
			if err := os.Unsetenv(key); err != nil { //nolint:forbidigo // the one permitted edit: envconfig cannot be told
				return fmt.Errorf("environment: %w", err)
			}
		}
	}
	return nil
}

// process fills one part of the configuration. envconfig stops at the first
// value that it cannot parse; that variable is removed and the part read
// again, so that every bad value is reported.
func process(g group, known []Variable) []error {
	var problems []error
	for {
		err := envconfig.Process(g.prefix, g.spec)
		var parse *envconfig.ParseError
		if !errors.As(err, &parse) {
			if err != nil {
				problems = append(problems, err)
			}
			return problems
		}
		problems = append(problems, parseProblems(parse, known)...)
		if err := os.Unsetenv(parse.KeyName); err != nil { //nolint:forbidigo // the process ends with these problems
			return append(problems, fmt.Errorf("%s: %w", parse.KeyName, err))
		}
	}
}

// parseProblems explains one value. A list may have several bad items, each of
// which is a problem of its own and is named instead of the whole value.
func parseProblems(parse *envconfig.ParseError, known []Variable) []error {
	var several interface{ Unwrap() []error }
	if errors.As(parse.Err, &several) {
		var problems []error
		for _, err := range several.Unwrap() {
			problems = append(problems, fmt.Errorf("%s: %w", parse.KeyName, err))
		}
		return problems
	}
	for _, v := range known {
		if v.Name == parse.KeyName && v.Secret {
			return []error{fmt.Errorf("%s: %s", parse.KeyName, reason(parse))}
		}
	}
	return []error{problem(parse.KeyName, parse.Value, "%s", reason(parse))}
}

// reason puts what strconv and time say into words for people.
func reason(parse *envconfig.ParseError) string {
	switch {
	case parse.TypeName == "bool":
		return "write true or false"
	case parse.TypeName == "int":
		var num *strconv.NumError
		if errors.As(parse.Err, &num) && errors.Is(num.Err, strconv.ErrRange) {
			return "the number is too large"
		}
		return "write a whole number"
	case parse.TypeName == fmt.Sprintf("%T", time.Duration(0)):
		return "not a duration; write one such as 90s, 30m or 1h30m"
	default:
		return parse.Err.Error()
	}
}

// problem is the one form of an error about a value.
func problem(variable, value, format string, args ...any) error {
	return fmt.Errorf("%s=%s: %s", variable, show(value), fmt.Sprintf(format, args...))
}

var plain = regexp.MustCompile(`^[\w./:@,+=-]+$`)

// show makes a value fit for a log line: short, on one line, and without the
// password or the signature that a URL may carry.
func show(value string) string {
	if address, query, ok := strings.Cut(value, "?"); ok && query != "" && strings.Contains(address, "://") {
		value = address + "?xxxxx"
	}
	if u, err := url.Parse(value); err == nil && u.User != nil {
		u.User = url.User("xxxxx")
		value = u.String()
	} else if scheme, rest, _ := strings.Cut(value, "://"); err != nil && strings.Contains(rest, "@") {
		value = scheme + "://xxxxx" + rest[strings.LastIndex(rest, "@"):]
	}
	if r := []rune(value); len(r) > 120 {
		value = string(r[:120]) + "..."
	}
	if plain.MatchString(value) {
		return value
	}
	return strconv.Quote(value)
}

// resolve fills in what depends on more than one variable.
func (c *Config) resolve() {
	if len(c.Platform) == 0 && c.CustomPlatform != "" {
		c.Platform = List{c.CustomPlatform}
	}
	args := c.BuildArg[:0:0]
	for _, arg := range c.BuildArg {
		if !arg.Bare {
			args = append(args, arg)
		} else if value, found := os.LookupEnv(arg.Key); found {
			args = append(args, Pair{Key: arg.Key, Value: value})
		}
	}
	c.BuildArg = args
	if _, set := os.LookupEnv(Prefix + "_CONTEXT"); !set && c.Bucket != "" {
		c.Context = c.Bucket
		if schemeOf(c.Bucket) == "" {
			c.Context = "gs://" + c.Bucket
		}
	}
	c.Context = strings.TrimPrefix(c.Context, "dir://")
	normalizeContexts(c.BuildContext)
	c.Secret.resolve()
	c.SSH.resolve(c.SSHAuthSock)
	c.Identities.resolve()

	// envconfig reads upper case only; programs read these in either.
	for _, p := range []struct {
		name  string
		upper *string
	}{
		{"HTTP_PROXY", &c.HTTPProxy},
		{"HTTPS_PROXY", &c.HTTPSProxy},
		{"FTP_PROXY", &c.FTPProxy},
		{"NO_PROXY", &c.NoProxy},
		{"ALL_PROXY", &c.AllProxy},
	} {
		if *p.upper != "" {
			c.ProxyArgs = append(c.ProxyArgs, Pair{Key: p.name, Value: *p.upper})
		}
		lower := strings.ToLower(p.name)
		if value, found := os.LookupEnv(lower); found {
			c.ProxyArgs = append(c.ProxyArgs, Pair{Key: lower, Value: value})
			if *p.upper == "" {
				*p.upper = value
			}
		}
	}
}

// CredentialsFile gives the file with registry credentials: the first that
// exists of those that the reference lists, or "" if there is none.
func (c *Config) CredentialsFile() string {
	var places []string
	if c.DockerConfig != "" {
		places = append(places, filepath.Join(c.DockerConfig, "config.json"),
			filepath.Join(c.DockerConfig, ".dockerconfigjson"), c.DockerConfig)
	}
	if c.RegistryAuthFile != "" {
		places = append(places, c.RegistryAuthFile)
	}
	if c.Home != "" {
		places = append(places, filepath.Join(c.Home, ".docker", "config.json"))
	}
	if c.XDGRuntimeDir != "" {
		places = append(places, filepath.Join(c.XDGRuntimeDir, "containers", "auth.json"))
	}
	for _, file := range places {
		// A file that exists but cannot be read is given too: whoever opens it says why.
		if info, err := os.Stat(file); err == nil && !info.IsDir() || errors.Is(err, os.ErrPermission) {
			return file
		}
	}
	return ""
}
