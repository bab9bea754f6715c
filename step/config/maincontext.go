// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// checkMainContext looks at the form of KANIKO_CONTEXT. Whether there is anything is found when the build begins. The error
// does not repeat the value, which may hold a password.
func checkMainContext(value string) error {
	scheme := schemeOf(value)
	switch scheme {
	case "", "dir", "tar", "git", "ssh":
		return nil
	case "s3", "gs":
		if bucket, _, _ := strings.Cut(strings.TrimPrefix(value, scheme+"://"), "/"); bucket == "" {
			return fmt.Errorf("names no bucket; write %s://BUCKET/OBJECT", scheme)
		}
		return nil
	case "http", "https":
		if u, err := url.Parse(value); err != nil || u.Host == "" {
			return errors.New("not a URL")
		}
		return nil
	default:
		return fmt.Errorf("%s:// is no kind of build context; write a directory, tar://FILE, tar://stdin, git://, ssh://, https://, s3:// or gs://", scheme)
	}
}

// GitOptions is what KANIKO_GIT says.
type GitOptions struct {
	Branch                        string
	NoSubmodules, InsecureSkipTLS bool
}

// GitOptions reads KANIKO_GIT.
func (c *Config) GitOptions() (GitOptions, error) {
	var (
		o    GitOptions
		errs []error
	)
	for _, line := range c.Git {
		for item := range strings.SplitSeq(line, ",") {
			if err := o.set(strings.TrimSpace(item)); err != nil {
				errs = append(errs, problem("KANIKO_GIT", item, "%v", err))
			}
		}
	}
	return o, errors.Join(errs...)
}

func (o *GitOptions) set(item string) error {
	key, value, _ := strings.Cut(item, "=")
	switch key {
	case "branch":
		o.Branch = value
		return nil
	case "depth": // never more of the history than the server makes us take
		if n, err := strconv.Atoi(value); err != nil || n < 0 {
			return errors.New("write a number after the =")
		}
		return nil
	}
	yes, err := strconv.ParseBool(value)
	if err != nil {
		yes, err = false, errors.New("write true or false after the =")
	}
	switch key {
	case "recurse-submodules":
		o.NoSubmodules = !yes
	case "insecure-skip-tls":
		o.InsecureSkipTLS = yes
	case "single-branch":
	default:
		return errors.New("not known; write branch=NAME, recurse-submodules=, single-branch= or insecure-skip-tls= with true or false, or depth=NUMBER")
	}
	return err
}
