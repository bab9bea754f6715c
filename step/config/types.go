// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Mode is what a run does.
type Mode string

// The modes.
const (
	// ModeBuild builds an image from a Dockerfile.
	ModeBuild Mode = "build"
	// ModeCheck runs the build checks on a Dockerfile and builds nothing.
	ModeCheck Mode = "check"
	// ModeWarm fetches images into the base cache.
	ModeWarm Mode = "warm"
	// ModePush pushes what another run has left in an OCI layout or a tarball.
	ModePush Mode = "push"
	// ModeIndex puts images of several platforms under one digest.
	ModeIndex Mode = "index"
	// ModeCacheList tells what the caches hold, ModeCachePrune removes from them what is too old or too much.
	ModeCacheList  Mode = "cache-list"
	ModeCachePrune Mode = "cache-prune"
)

// Decode implements envconfig.Decoder.
func (m *Mode) Decode(value string) error {
	return oneOf(m, value, ModeBuild, ModeCheck, ModeWarm, ModePush, ModeIndex, ModeCacheList, ModeCachePrune)
}

// CacheMounts is where the contents of cache mounts are kept.
type CacheMounts string

// The places of cache mounts.
const (
	CacheMountsDir      CacheMounts = "dir"
	CacheMountsRegistry CacheMounts = "registry"
)

// Decode implements envconfig.Decoder.
func (c *CacheMounts) Decode(value string) error {
	return oneOf(c, value, CacheMountsDir, CacheMountsRegistry)
}

// Compression is how layers are compressed.
type Compression string

// The compressions.
const (
	Gzip Compression = "gzip"
	Zstd Compression = "zstd"
)

// Decode implements envconfig.Decoder.
func (c *Compression) Decode(value string) error { return oneOf(c, value, Gzip, Zstd) }

// Format is the family of media types of an image.
type Format string

// The formats.
const (
	OCI    Format = "oci"
	Docker Format = "docker"
)

// Decode implements envconfig.Decoder.
func (f *Format) Decode(value string) error { return oneOf(f, value, OCI, Docker) }

// Isolation is how RUN is kept apart from the builder.
type Isolation string

// The isolations.
const (
	IsolationAuto      Isolation = "auto"
	IsolationNamespace Isolation = "namespace"
	IsolationInPlace   Isolation = "inplace"
)

// Decode implements envconfig.Decoder.
func (i *Isolation) Decode(value string) error {
	return oneOf(i, value, IsolationAuto, IsolationNamespace, IsolationInPlace)
}

// Network is what RUN reaches.
type Network string

// The networks.
const (
	NetworkDefault Network = "default"
	NetworkHost    Network = "host"
	NetworkNone    Network = "none"
)

// Decode implements envconfig.Decoder.
func (n *Network) Decode(value string) error {
	return oneOf(n, value, NetworkDefault, NetworkHost, NetworkNone)
}

// LogFormat is the form of the log.
type LogFormat string

// The log formats.
const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// Decode implements envconfig.Decoder.
func (f *LogFormat) Decode(value string) error { return oneOf(f, value, LogText, LogJSON) }

// Verbosity is the least severity that is logged.
type Verbosity string

// The verbosities, from the least to the most talkative.
const (
	Error Verbosity = "error"
	Warn  Verbosity = "warn"
	Info  Verbosity = "info"
	Debug Verbosity = "debug"
	Trace Verbosity = "trace"
)

// Decode implements envconfig.Decoder.
func (v *Verbosity) Decode(value string) error {
	return oneOf(v, value, Error, Warn, Info, Debug, Trace)
}

// oneOf sets to when the value is among the supported.
func oneOf[T ~string](to *T, value string, supported ...T) error {
	if slices.Contains(supported, T(value)) {
		*to = T(value)
		return nil
	}
	names := make([]string, len(supported))
	for i, s := range supported {
		names[i] = string(s)
	}
	return errors.New("not a known value; supported: " + strings.Join(names, ", "))
}

// List holds items that were written one a line or as a JSON array of strings.
// Items are trimmed, empty ones dropped; commas and colons mean nothing.
type List []string

// Decode implements envconfig.Decoder.
func (l *List) Decode(value string) error {
	*l = nil
	list, err := items(value)
	for _, item := range list {
		*l = append(*l, strings.TrimSpace(item))
	}
	return err
}

// items splits a list variable and drops what is blank. It keeps the spaces of
// the others, which may belong to a value. What begins as an array of strings
// and is none was meant as one: nothing that goes into a list begins so.
func items(value string) ([]string, error) {
	var list []string
	if err := json.Unmarshal([]byte(value), &list); err != nil {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(value), "["); ok && strings.HasPrefix(strings.TrimSpace(rest), `"`) {
			// Joined, and so said without the value, which may be a secret.
			return nil, errors.Join(errors.New("it begins as a JSON array of strings and is none; write one, or one item a line"))
		}
		list = strings.Split(value, "\n")
		for i := range list {
			list[i] = strings.TrimSuffix(list[i], "\r")
		}
	}
	return slices.DeleteFunc(list, func(s string) bool { return strings.TrimSpace(s) == "" }), nil
}

// Pair is KEY=VALUE. Bare is true for a KEY without "=".
type Pair struct {
	Key, Value string
	Bare       bool
}

// Pairs is a list of KEY=VALUE. Values are kept as they are, spaces included.
type Pairs []Pair

// Decode implements envconfig.Decoder. The errors name no value: build
// arguments are not secrets, but people do put secrets there.
func (p *Pairs) Decode(value string) error {
	*p = nil
	list, err := items(value)
	if err != nil {
		return err
	}
	var errs []error
	for n, item := range list {
		key, val, found := strings.Cut(item, "=")
		key = strings.TrimSpace(key)
		if key == "" || strings.ContainsAny(key, " \t\n") {
			errs = append(errs, fmt.Errorf("item %d: no key before the value; write KEY=VALUE, one a line", n+1))
			continue
		}
		*p = append(*p, Pair{Key: key, Value: val, Bare: !found})
	}
	return errors.Join(errs...)
}

// Map gives the pairs as a map; the last of several with one key wins.
func (p Pairs) Map() map[string]string {
	m := make(map[string]string, len(p))
	for _, pair := range p {
		m[pair.Key] = pair.Value
	}
	return m
}

// Host is a line for /etc/hosts.
type Host struct {
	Name string
	IP   netip.Addr
}

// Hosts is a list of NAME=ADDRESS or NAME:ADDRESS.
type Hosts []Host

// Decode implements envconfig.Decoder.
func (h *Hosts) Decode(value string) error {
	*h = nil
	return eachItem(value, func(item string) error {
		i := strings.IndexAny(item, "=:")
		if i <= 0 {
			return errors.New("write NAME=ADDRESS")
		}
		// "host-gateway" is the engine's own address elsewhere: here there is no engine.
		ip, err := netip.ParseAddr(strings.Trim(item[i+1:], "[]"))
		if err != nil {
			return errors.New("the part after the name is not an IP address")
		}
		if strings.ContainsAny(item[:i], " \t\n#") {
			return errors.New("not a host name")
		}
		*h = append(*h, Host{Name: item[:i], IP: ip})
		return nil
	})
}

// Size is a number of bytes.
type Size int64

// Decode implements envconfig.Decoder. Units are powers of 1024, as docker
// build --shm-size has them.
func (s *Size) Decode(value string) error {
	bad := errors.New("not a size; write bytes, or a number with k, m or g")
	digits := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(value), "b"), "i")
	shift := 0
	for unit, bits := range map[string]int{"k": 10, "m": 20, "g": 30} {
		if d, found := strings.CutSuffix(digits, unit); found {
			digits, shift = d, bits
			break
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>shift {
		return bad
	}
	*s = Size(n << shift)
	return nil
}

// Epoch is a number of seconds since 1970, if one was given.
type Epoch struct {
	Seconds int64
	Set     bool
}

// Decode implements envconfig.Decoder. The latest time is the last second of
// the year 9999: RFC 3339, which image configurations use, has no later one.
func (e *Epoch) Decode(value string) error {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < 0 || n > 253402300799 {
		return errors.New("not a number of seconds since 1970")
	}
	*e = Epoch{Seconds: n, Set: true}
	return nil
}

// Ulimit is one resource limit; -1 is unlimited.
type Ulimit struct {
	Name       string
	Soft, Hard int64
}

// Ulimits is a list of NAME=SOFT or NAME=SOFT:HARD.
type Ulimits []Ulimit

// Decode implements envconfig.Decoder.
func (u *Ulimits) Decode(value string) error {
	*u = nil
	// setrlimit(2)
	known := []string{
		"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue",
		"nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",
	}
	return eachItem(value, func(item string) error {
		name, limits, _ := strings.Cut(item, "=")
		if !slices.Contains(known, name) {
			return fmt.Errorf("%q is no limit; there are: %s", name, strings.Join(known, ", "))
		}
		softText, hardText, both := strings.Cut(limits, ":")
		if !both {
			hardText = softText
		}
		soft, errSoft := strconv.ParseInt(softText, 10, 64)
		hard, errHard := strconv.ParseInt(hardText, 10, 64)
		if errSoft != nil || errHard != nil || soft < -1 || hard < -1 {
			return errors.New("write NAME=SOFT or NAME=SOFT:HARD, with numbers")
		}
		if hard != -1 && (soft == -1 || soft > hard) {
			return errors.New("the soft limit is above the hard one")
		}
		*u = append(*u, Ulimit{Name: name, Soft: soft, Hard: hard})
		return nil
	})
}

// eachItem calls f for the trimmed items and names the item in its errors.
func eachItem(value string, f func(item string) error) error {
	list, err := items(value)
	if err != nil {
		return err
	}
	var errs []error
	for _, item := range list {
		item = strings.TrimSpace(item)
		if err := f(item); err != nil {
			errs = append(errs, fmt.Errorf("%q: %w", item, err))
		}
	}
	return errors.Join(errs...)
}
