// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
)

const (
	maxPort = 65535
	// maxPorts is every port of the three protocols.
	maxPorts = 3 * (maxPort + 1)
)

// expose adds ports. A variable may hold several, so words are split after
// expansion.
func (s *stageState) expose(c *instructions.ExposeCommand, in *Instruction) error {
	var ports []string
	for _, word := range c.Ports {
		specs, err := s.p.expander.Words(word, s.env)
		if err != nil {
			return err
		}
		for _, spec := range specs {
			some, err := s.parsePorts(spec)
			if err != nil {
				return err
			}
			if ports = append(ports, some...); len(ports) > maxPorts {
				return fmt.Errorf("EXPOSE names more than %d ports", maxPorts)
			}
		}
	}
	if s.config.Config.ExposedPorts == nil {
		s.config.Config.ExposedPorts = map[string]struct{}{}
	}
	for _, port := range ports {
		s.config.Config.ExposedPorts[port] = struct{}{}
	}
	in.History = fmt.Sprintf("EXPOSE %v", ports)
	return nil
}

// parsePorts reads [[ip:]host:]container[/protocol], where container may be a
// range. Address and host port mean nothing in an image and are only checked.
func (s *stageState) parsePorts(spec string) ([]string, error) {
	address, host, container := splitPortSpec(spec)
	container, protocol, _ := strings.Cut(container, "/")
	if protocol == "" {
		protocol = "tcp"
	}
	lower := strings.ToLower(protocol)
	switch {
	case container == "":
		return nil, fmt.Errorf("invalid port: %q: no port specified", spec)
	case lower != "tcp" && lower != "udp" && lower != "sctp":
		return nil, fmt.Errorf("invalid port: %q: invalid proto: %s", spec, protocol)
	}
	s.warnExpose(spec, protocol != lower, address != "" || host != "")
	if err := checkAddress(address); err != nil {
		return nil, err
	}
	first, last, err := portRange(container)
	if err != nil {
		return nil, fmt.Errorf("invalid containerPort: %s", container)
	}
	if host != "" {
		from, to, err := portRange(host)
		if err != nil {
			return nil, fmt.Errorf("invalid hostPort: %s", host)
		}
		if first != last && last-first != to-from {
			return nil, fmt.Errorf("invalid ranges specified for container and host Ports: %s and %s", container, host)
		}
	}
	ports := make([]string, 0, last-first+1)
	for port := first; port <= last; port++ {
		ports = append(ports, strconv.Itoa(port)+"/"+lower)
	}
	return ports, nil
}

// splitPortSpec cuts at the last two colons: the address may be IPv6.
func splitPortSpec(spec string) (address, host, container string) {
	rest, container, ok := cutLast(spec, ":")
	if !ok {
		return "", "", spec
	}
	address, host, ok = cutLast(rest, ":")
	if !ok {
		return "", rest, container
	}
	return address, host, container
}

func cutLast(s, sep string) (before, after string, found bool) {
	at := strings.LastIndex(s, sep)
	if at < 0 {
		return s, "", false
	}
	return s[:at], s[at+len(sep):], true
}

func checkAddress(address string) error {
	if address == "" {
		return nil
	}
	bare := strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
	if ip, err := netip.ParseAddr(bare); err != nil || ip.Zone() != "" {
		return fmt.Errorf("invalid IP address: %s", address)
	}
	return nil
}

func portRange(text string) (first, last int, err error) {
	from, to, isRange := strings.Cut(text, "-")
	if first, err = portNumber(from); err != nil || !isRange {
		return first, first, err
	}
	if last, err = portNumber(to); err == nil && last < first {
		err = errors.New("invalid port range: " + text)
	}
	return first, last, err
}

func portNumber(text string) (int, error) {
	port, err := strconv.Atoi(text)
	if err == nil && (port < 0 || port > maxPort) {
		err = fmt.Errorf("value out of range (0-%d)", maxPort)
	}
	return port, err
}

func (s *stageState) warnExpose(spec string, casing, mapping bool) {
	if casing {
		rule := &linter.RuleExposeProtoCasing
		s.lint.Run(rule, s.at.Location(), rule.Format(spec))
	}
	if mapping {
		rule := &linter.RuleExposeInvalidFormat
		s.lint.Run(rule, s.at.Location(), rule.Format(spec))
	}
}
