// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/name"
)

// Validate reports every value that cannot be meant and every contradiction
// between variables, joined. It looks at nothing outside the struct: whether a
// file is there is found by whoever opens it.
func (c *Config) Validate() error {
	return errors.Join(
		c.checkSource(),
		c.checkContexts(),
		c.checkPlatform(),
		c.checkDestinations(),
		c.checkOutputs(),
		c.checkImage(),
		c.checkRun(),
		c.checkCache(),
		c.checkAgents(),
		c.checkRegistries(),
		c.checkEnvironment(),
	)
}

func (c *Config) checkSource() error {
	var errs []error
	if err := checkMainContext(c.Context); err != nil {
		errs = append(errs, problem("KANIKO_CONTEXT", c.Context, "%v", err))
	}
	if scheme := schemeOf(c.Dockerfile); scheme != "" && scheme != "http" && scheme != "https" {
		errs = append(errs, problem("KANIKO_DOCKERFILE", c.Dockerfile, "a Dockerfile by %s is not supported; give a path or an http or https URL", scheme))
	}
	if c.GitPullMethod != "" && c.GitPullMethod != "https" && c.GitPullMethod != "http" {
		errs = append(errs, problem("GIT_PULL_METHOD", c.GitPullMethod, "write https or http"))
	}
	_, err := c.GitOptions()
	errs = append(errs, err)
	if sub := strings.TrimLeft(c.ContextSubPath, "/"); sub != "" && !filepath.IsLocal(sub) {
		errs = append(errs, problem("KANIKO_CONTEXT_SUB_PATH", c.ContextSubPath, "not inside the context; give a path without .."))
	}
	for _, p := range c.IgnorePath {
		if !path.IsAbs(p) || path.Clean(p) == "/" {
			errs = append(errs, problem("KANIKO_IGNORE_PATH", p, "not an absolute path below /"))
		}
	}
	return errors.Join(errs...)
}

// schemeOf gives the scheme of NAME://..., or "".
func schemeOf(value string) string {
	scheme, _, found := strings.Cut(value, "://")
	if !found || strings.ContainsAny(scheme, "/. ") {
		return ""
	}
	return scheme
}

func (c *Config) checkPlatform() error {
	var errs []error
	if c.CustomPlatform != "" && (len(c.Platform) != 1 || c.Platform[0] != c.CustomPlatform) {
		errs = append(errs, problem("KANIKO_CUSTOM_PLATFORM", c.CustomPlatform,
			"KANIKO_PLATFORM says %s; set one of them", show(strings.Join(c.Platform, " "))))
	}
	seen := map[string]string{}
	for _, text := range c.Platform {
		p, err := parsePlatform(text)
		if err != nil {
			errs = append(errs, problem("KANIKO_PLATFORM", text, "%v", err))
			continue
		}
		// linux/arm64 and linux/arm64/v8 are one platform.
		key := platforms.FormatAll(p)
		if other, twice := seen[key]; twice {
			errs = append(errs, problem("KANIKO_PLATFORM", text, "the same platform as %s in an earlier item", show(other)))
		}
		seen[key] = text
	}
	if len(c.Platform) > 1 && c.TarPath != "" {
		errs = append(errs, problem("KANIKO_TAR_PATH", c.TarPath, "the file holds one platform and KANIKO_PLATFORM has %d; use KANIKO_OCI_LAYOUT_PATH", len(c.Platform)))
	}
	return errors.Join(errs...)
}

func (c *Config) checkDestinations() error {
	if len(c.Destination) == 0 && !c.NoPush && !c.Dryrun && c.Mode != ModeCheck && c.Mode != ModeWarm && !c.Mode.keepsCaches() {
		return errors.New("KANIKO_DESTINATION is not set: give the reference to push to, or KANIKO_NO_PUSH=true")
	}
	var errs []error
	for _, ref := range c.Destination {
		parsed, err := name.ParseReference(ref)
		switch {
		case strings.Contains(ref, "://"):
			errs = append(errs, problem("KANIKO_DESTINATION", ref, "not an image reference; leave out the scheme"))
		case strings.Contains(ref, "@"):
			errs = append(errs, problem("KANIKO_DESTINATION", ref, "the digest is not known before the build; give a tag"))
		case err != nil:
			errs = append(errs, problem("KANIKO_DESTINATION", ref, "not an image reference; write HOST/REPOSITORY:TAG%s", hint(ref)))
		case parsed.Context().RepositoryStr() == "":
			errs = append(errs, problem("KANIKO_DESTINATION", ref, "names no repository; write HOST/REPOSITORY:TAG"))
		}
	}
	return errors.Join(errs...)
}

// hint says what is most often wrong with a reference.
func hint(ref string) string {
	switch {
	case strings.ContainsAny(ref, ", \t"):
		return "; several go one a line"
	case strings.ToLower(ref) != ref:
		return "; the repository is in lower case"
	default:
		return ""
	}
}

func (c *Config) checkOutputs() error {
	var errs []error
	written := map[string]string{}
	for _, o := range []struct{ variable, file string }{
		{"KANIKO_TAR_PATH", c.TarPath},
		{"KANIKO_OCI_LAYOUT_PATH", c.OCILayoutPath},
		{"KANIKO_DIGEST_FILE", c.DigestFile},
		{"KANIKO_IMAGE_NAME_WITH_DIGEST_FILE", c.ImageNameWithDigestFile},
		{"KANIKO_IMAGE_NAME_TAG_WITH_DIGEST_FILE", c.ImageNameTagWithDigestFile},
	} {
		if o.file == "" {
			continue
		}
		if scheme := schemeOf(o.file); scheme != "" {
			errs = append(errs, problem(o.variable, o.file, "writing by %s is not supported yet; give a path", scheme))
			continue
		}
		file := filepath.Clean(o.file)
		if other, twice := written[file]; twice {
			errs = append(errs, problem(o.variable, o.file, "the same file as %s", other))
		}
		written[file] = o.variable
	}
	if scheme := schemeOf(c.ResultsDir); scheme != "" {
		errs = append(errs, problem("KANIKO_RESULTS_DIR", c.ResultsDir, "not a directory"))
	}
	return errors.Join(errs...)
}

func (c *Config) checkImage() error {
	var errs []error
	highest := 9
	if c.Compression == Zstd {
		highest = 22
		if c.ImageFormat == Docker {
			errs = append(errs, problem("KANIKO_COMPRESSION", string(Zstd), "Docker's media types have no zstd; use gzip, or KANIKO_IMAGE_FORMAT=oci"))
		}
		if c.TarPath != "" {
			errs = append(errs, problem("KANIKO_COMPRESSION", string(Zstd), "the file of KANIKO_TAR_PATH cannot hold zstd layers; use gzip, or KANIKO_OCI_LAYOUT_PATH"))
		}
	}
	if c.ImageFormat == Docker && len(c.Annotation) > 0 {
		errs = append(errs, errors.New("KANIKO_ANNOTATION: Docker's manifests have no annotations; use KANIKO_IMAGE_FORMAT=oci, or KANIKO_LABEL"))
	}
	if l := c.CompressionLevel; l != -1 && (l < 1 || l > highest) {
		errs = append(errs, fmt.Errorf("KANIKO_COMPRESSION_LEVEL=%d: %s has the levels 1 to %d, and -1 for a good default", l, c.Compression, highest))
	}
	return errors.Join(errs...)
}

func (c *Config) checkRun() error {
	var errs []error
	if !filepath.IsAbs(c.Dir) || filepath.Clean(c.Dir) == "/" {
		errs = append(errs, problem("KANIKO_DIR", c.Dir, "not an absolute path below /"))
	}
	// sethostname(2) takes 64 bytes.
	if h := c.Hostname; len(h) > 64 || strings.ContainsFunc(h, notInHostname) {
		errs = append(errs, problem("KANIKO_HOSTNAME", h, "not a host name"))
	}
	if c.RunTimeout < 0 {
		errs = append(errs, problem("KANIKO_RUN_TIMEOUT", c.RunTimeout.String(), "negative; 0s is no limit"))
	}
	return errors.Join(errs...)
}

func notInHostname(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
}

func (c *Config) checkRegistries() error {
	var errs []error
	for _, list := range []struct {
		variable string
		items    List
		check    func(string) error
	}{
		{"KANIKO_INSECURE_REGISTRY", c.InsecureRegistry, checkHost},
		{"KANIKO_SKIP_TLS_VERIFY_REGISTRY", c.SkipTLSVerifyRegistry, checkHost},
		{"KANIKO_REGISTRY_MIRROR", c.RegistryMirror, checkMirror},
		{"KANIKO_REGISTRY_TOKEN_REALM", c.RegistryTokenRealm, checkHost},
	} {
		for _, item := range list.items {
			if err := list.check(item); err != nil {
				errs = append(errs, problem(list.variable, item, "%v", err))
			}
		}
	}
	for _, n := range []struct {
		variable string
		value    int
	}{
		{"KANIKO_PUSH_RETRY", c.PushRetry},
		{"KANIKO_IMAGE_DOWNLOAD_RETRY", c.ImageDownloadRetry},
	} {
		if n.value < 0 || n.value > 100 {
			errs = append(errs, fmt.Errorf("%s=%d: write a number from 0 to 100", n.variable, n.value))
		}
	}
	if c.SkipDefaultRegistryFallback && len(c.RegistryMirror) == 0 && len(c.RegistryMap) == 0 {
		errs = append(errs, errors.New("KANIKO_SKIP_DEFAULT_REGISTRY_FALLBACK=true: there are no mirrors; set KANIKO_REGISTRY_MIRROR or KANIKO_REGISTRY_MAP"))
	}
	return errors.Join(errs...)
}

func (c *Config) checkEnvironment() error {
	var errs []error
	if c.DockerAuthConfig != "" && !json.Valid([]byte(c.DockerAuthConfig)) {
		errs = append(errs, errors.New("DOCKER_AUTH_CONFIG: not JSON; it holds the content of a config.json"))
	}
	for _, proxy := range []struct{ variable, value string }{
		{"HTTP_PROXY", c.HTTPProxy},
		{"HTTPS_PROXY", c.HTTPSProxy},
	} {
		// Programs take HOST:PORT too, which is not a URL.
		if strings.Contains(proxy.value, "://") {
			if _, err := url.Parse(proxy.value); err != nil {
				errs = append(errs, fmt.Errorf("%s: not a URL; write http://HOST:PORT", proxy.variable))
			}
		}
	}
	return errors.Join(errs...)
}
