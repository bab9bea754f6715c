// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// HostFiles maps a registry, HOST or HOST:PORT, to a file.
type HostFiles map[string]string

// Decode implements envconfig.Decoder.
func (h *HostFiles) Decode(value string) error {
	*h = HostFiles{}
	return eachItem(value, func(item string) error {
		host, file, err := cutHost(item, "FILE")
		if err != nil {
			return err
		}
		if _, twice := (*h)[host]; twice {
			return fmt.Errorf("%s has two; put both certificates into one file", host)
		}
		(*h)[host] = file
		return nil
	})
}

// KeyPair is a client certificate: two PEM files.
type KeyPair struct {
	Cert, Key string
}

// HostPairs maps a registry, HOST or HOST:PORT, to a client certificate.
type HostPairs map[string]KeyPair

// Decode implements envconfig.Decoder.
func (h *HostPairs) Decode(value string) error {
	*h = HostPairs{}
	return eachItem(value, func(item string) error {
		host, files, err := cutHost(item, "CERTIFICATE,KEY")
		if err != nil {
			return err
		}
		cert, key, found := strings.Cut(files, ",")
		if !found || cert == "" || key == "" || strings.Contains(key, ",") {
			return errors.New("write HOST=CERTIFICATE,KEY")
		}
		if _, twice := (*h)[host]; twice {
			return fmt.Errorf("%s has two", host)
		}
		(*h)[host] = KeyPair{Cert: cert, Key: key}
		return nil
	})
}

// HostLists maps a registry to its mirrors in the order in which they are asked.
type HostLists map[string][]string

// Decode implements envconfig.Decoder.
func (h *HostLists) Decode(value string) error {
	*h = HostLists{}
	return eachItem(value, func(item string) error {
		for part := range strings.SplitSeq(item, ";") {
			part = strings.TrimSpace(part)
			if part == "" {
				continue
			}
			host, mirror, err := cutHost(part, "MIRROR")
			if err != nil {
				return err
			}
			if err := checkMirror(mirror); err != nil {
				return err
			}
			(*h)[host] = append((*h)[host], mirror)
		}
		return nil
	})
}

func cutHost(item, rest string) (host, value string, err error) {
	host, value, found := strings.Cut(item, "=")
	if !found || host == "" || value == "" {
		return "", "", fmt.Errorf("write HOST=%s", rest)
	}
	return host, value, checkHost(host)
}

// checkHost accepts HOST and HOST:PORT.
func checkHost(host string) error {
	if scheme, _, found := strings.Cut(host, "://"); found {
		return fmt.Errorf("leave out %s://", scheme)
	}
	if strings.ContainsAny(host, ", ;") { // the name package lets hosts have them
		return errors.New("not a registry; write HOST or HOST:PORT; several go one a line")
	}
	if _, err := name.NewRegistry(host, name.StrictValidation); err != nil {
		return errors.New("not a registry; write HOST or HOST:PORT")
	}
	return nil
}

// checkMirror accepts HOST and HOST/PATH.
func checkMirror(mirror string) error {
	host, path, found := strings.Cut(mirror, "/")
	if strings.Contains(mirror, "://") || !found {
		return checkHost(mirror)
	}
	if err := checkHost(host); err != nil {
		return err
	}
	if _, err := name.NewRepository(mirror+"/x", name.StrictValidation); err != nil {
		return fmt.Errorf("%q cannot begin the name of a repository", path)
	}
	return nil
}
