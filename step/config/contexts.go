// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	"github.com/moby/buildkit/util/gitutil"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// normalizeContexts gives the names of build contexts the form in which they
// are looked up, and drops spaces around values. What cannot be a name stays
// as it is, for checkContexts.
func normalizeContexts(contexts Pairs) {
	for i := range contexts {
		if normal, err := contextName(contexts[i].Key); err == nil {
			contexts[i].Key = normal
		}
		contexts[i].Value = strings.TrimSpace(contexts[i].Value)
	}
}

// contextName normalises NAME or NAME::os/arch as BuildKit does: NAME is a
// reference in its short form, and "latest" is no part of it.
func contextName(key string) (string, error) {
	short, platform, particular := strings.Cut(key, "::")
	ref, err := reference.ParseNormalizedNamed(short)
	if err != nil {
		return "", errors.New("not the name of a stage or an image")
	}
	short = strings.TrimSuffix(reference.FamiliarString(ref), ":latest")
	if short == "scratch" || short == "context" {
		return "", fmt.Errorf("%s cannot be replaced; choose another name", short)
	}
	if !particular {
		return short, nil
	}
	p, err := parsePlatform(platform)
	if err != nil {
		return "", fmt.Errorf("after :: %w", err)
	}
	return short + "::" + platforms.FormatAll(p), nil
}

// parsePlatform accepts os/arch and os/arch/variant, and drops a variant that
// says nothing.
func parsePlatform(text string) (ocispec.Platform, error) {
	p, err := platforms.Parse(text)
	// The parser completes what is missing from the machine it runs on; a
	// build must not depend on that.
	if err != nil || !strings.Contains(text, "/") {
		more := ""
		if strings.ContainsAny(text, ", \t") {
			more = "; several go one a line"
		}
		return p, errors.New("not a platform; write os/arch or os/arch/variant, such as linux/arm64" + more)
	}
	if p.OS != "linux" {
		return p, errors.New("only linux images can be built")
	}
	return platforms.Normalize(p), nil
}

// checkContexts looks at names and at the form of values. Whether there is
// anything where a value points to is found when the Dockerfile uses it.
func (c *Config) checkContexts() error {
	var errs []error
	seen := map[string]bool{}
	for _, pair := range c.BuildContext {
		normal, err := contextName(pair.Key)
		switch {
		case err != nil:
		case seen[normal]:
			err = errors.New("an earlier item has the same name")
		case pair.Bare:
			err = errors.New("no value; write NAME=VALUE")
		default:
			seen[normal] = true
			err = checkContextValue(pair.Value)
		}
		if err == nil {
			continue
		}
		what := show(pair.Key)
		if !pair.Bare {
			what += "=" + show(pair.Value)
		}
		errs = append(errs, fmt.Errorf("KANIKO_BUILD_CONTEXT: %s: %w", what, err))
	}
	return errors.Join(errs...)
}

// checkContextValue accepts a directory, docker-image://REF,
// oci-layout://DIR@DIGEST, oci-layout://DIR:TAG, and git and http URLs. Its
// errors do not repeat the value, which may hold a password.
func checkContextValue(value string) error {
	scheme := schemeOf(value)
	rest := strings.TrimPrefix(value, scheme+"://")
	switch scheme {
	case "docker-image":
		if _, err := reference.ParseNormalizedNamed(rest); err != nil {
			return errors.New("not an image reference; write docker-image://HOST/REPOSITORY:TAG" + hint(rest))
		}
		return nil
	case "oci-layout":
		return checkLayout(rest)
	case "git", "ssh":
		return checkGitURL(value)
	case "http", "https":
		u, err := url.Parse(value)
		if err != nil || u.Host == "" {
			return errors.New("not a URL")
		}
		if strings.HasSuffix(u.Path, ".git") {
			return checkGitURL(value)
		}
		return nil
	case "":
		return checkContextPath(value)
	default:
		return fmt.Errorf("%s:// is no kind of build context; write a directory, docker-image://REF, oci-layout://DIR@DIGEST, or a git or http URL", scheme)
	}
}

// checkContextPath is for what has no scheme: a directory, or a git URL in the
// form of scp.
func checkContextPath(value string) error {
	switch {
	case value == "":
		return errors.New("no value; write NAME=VALUE")
	case gitutil.IsGitTransport(value):
		return checkGitURL(value)
	case strings.HasPrefix(value, "github.com/"):
		return errors.New("a directory or a repository? Write ./github.com/... or https://github.com/....git")
	default:
		return nil
	}
}

func checkGitURL(value string) error {
	_, isGit, err := dfgitutil.ParseGitRef(value)
	switch {
	case !isGit:
		return errors.New("not a git URL")
	case err != nil: // of the query, which holds no password
		return fmt.Errorf("not a git URL: %w", err)
	default:
		return nil
	}
}

// checkLayout accepts DIR@DIGEST and DIR:TAG.
func checkLayout(at string) error {
	form := "write oci-layout://DIR@DIGEST or oci-layout://DIR:TAG"
	if i := strings.LastIndex(at, "@"); i >= 0 {
		if _, err := v1.NewHash(at[i+1:]); err != nil || i == 0 {
			return errors.New("not a directory and a digest; " + form)
		}
		return nil
	}
	i := strings.LastIndex(at, ":")
	if i <= 0 {
		return errors.New("it does not say which image of the layout; " + form)
	}
	if _, err := name.NewTag("r.example/x:"+at[i+1:], name.StrictValidation); err != nil {
		return errors.New("not a directory and a tag; " + form)
	}
	return nil
}
