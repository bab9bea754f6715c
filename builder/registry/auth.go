// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// Source is one place that credentials come from. The sources of a Client are
// asked in order; the first that knows the registry answers.
type Source struct {
	Name     string // for messages: a file, or the name of a cloud
	Keychain authn.Keychain
}

// resolve returns the credential for a repository and the name of its source;
// the name is empty when nobody knows one, and the credential is then anonymous.
func resolve(ctx context.Context, sources []Source, repo name.Repository) (authn.Authenticator, string, error) {
	for _, s := range sources {
		auth, err := authn.Resolve(ctx, s.Keychain, repo)
		if err != nil {
			return nil, "", fmt.Errorf("credentials from %s: %w", s.Name, err)
		}
		if auth != authn.Anonymous {
			return auth, s.Name, nil
		}
	}
	return authn.Anonymous, "", nil
}

// dockerConfig is the part of Docker's config.json that holds credentials, by
// normalised key: a host[:port], or that and the beginning of a repository.
type dockerConfig struct {
	auths   map[string]authn.AuthConfig
	helpers []string // programs that the file wants to have run
}

// Resolve returns the credential with the longest key that is the repository,
// a whole-component prefix of it, or its host. The host must match exactly,
// port included: a credential for one never serves another.
func (d dockerConfig) Resolve(r authn.Resource) (authn.Authenticator, error) {
	host := canonicalHost(r.RegistryStr())
	key := host + strings.TrimPrefix(r.String(), r.RegistryStr())
	for {
		if a, ok := d.auths[key]; ok {
			return authn.FromConfig(a), nil
		}
		if key == host {
			return authn.Anonymous, nil
		}
		key = key[:strings.LastIndexByte(key, '/')]
	}
}

// readDockerConfig reads the credentials that a path names: a directory with
// config.json or .dockerconfigjson (the key of a Kubernetes pull secret), or the
// file itself. What does not exist holds no credentials; that is no error.
func readDockerConfig(path string) (file string, data []byte, err error) {
	for _, file := range []string{filepath.Join(path, "config.json"), filepath.Join(path, ".dockerconfigjson"), path} {
		data, err := os.ReadFile(file)
		switch {
		case err == nil:
			return file, data, nil
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR):
			continue
		default:
			return file, nil, fmt.Errorf("registry credentials: %w", err)
		}
	}
	return "", nil, nil
}

// parseDockerConfig reads the content of a config.json. Its errors name the
// entry and never contain a secret.
func parseDockerConfig(data []byte) (dockerConfig, error) {
	var file struct {
		Auths map[string]struct {
			Auth          string `json:"auth"`
			Username      string `json:"username"`
			Password      string `json:"password"`
			IdentityToken string `json:"identitytoken"`
			RegistryToken string `json:"registrytoken"`
		} `json:"auths"`
		CredHelpers map[string]string `json:"credHelpers"`
		CredsStore  string            `json:"credsStore"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return dockerConfig{}, jsonProblem(err)
	}
	d := dockerConfig{auths: map[string]authn.AuthConfig{}}
	for key, a := range file.Auths {
		cred := authn.AuthConfig{
			Username: a.Username, Password: a.Password,
			IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
		}
		if a.Auth != "" {
			user, password, err := decodeAuth(a.Auth)
			if err != nil {
				return dockerConfig{}, fmt.Errorf("auths[%q]: %w", key, err)
			}
			cred.Username, cred.Password = user, password
		}
		if cred != (authn.AuthConfig{}) { // an empty entry is left by credential helpers
			d.auths[canonicalKey(key)] = cred
		}
	}
	for _, helper := range file.CredHelpers {
		d.helpers = append(d.helpers, helper)
	}
	if file.CredsStore != "" {
		d.helpers = append(d.helpers, file.CredsStore)
	}
	sort.Strings(d.helpers)
	return d, nil
}

// jsonProblem reports where the JSON is wrong without quoting what is there.
func jsonProblem(err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("not valid JSON at byte %d", syntax.Offset)
	}
	var typed *json.UnmarshalTypeError
	if errors.As(err, &typed) {
		return fmt.Errorf("%s is not %s", typed.Field, typed.Type)
	}
	return errors.New("not valid JSON")
}

// decodeAuth splits the auth field: base64 of user:password, padded or not.
func decodeAuth(field string) (user, password string, err error) {
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.TrimSpace(field), "="))
	if err != nil {
		return "", "", errors.New("auth is not base64")
	}
	user, password, ok := strings.Cut(string(raw), ":")
	if !ok || user == "" {
		return "", "", errors.New("auth is not base64 of user:password")
	}
	return user, strings.TrimRight(password, "\x00"), nil
}

// canonicalKey normalises a key of auths. Docker's old keys are URLs whose path
// is the API version, as in https://index.docker.io/v1/; other paths are the
// beginning of a repository.
func canonicalKey(key string) string {
	_, rest, isURL := strings.Cut(key, "://")
	if !isURL {
		rest = key
	}
	host, path, _ := strings.Cut(rest, "/")
	path = strings.Trim(path, "/")
	if path == "v1" || path == "v2" || path == "" {
		return canonicalHost(host)
	}
	return canonicalHost(host) + "/" + path
}

// canonicalHost gives one spelling to each registry: lower case, without the
// port of https, and Docker Hub under the name that is dialled.
func canonicalHost(host string) string {
	host = strings.TrimSuffix(strings.ToLower(strings.TrimSpace(host)), ":443")
	switch host {
	case "docker.io", "registry-1.docker.io", "www.docker.io":
		return name.DefaultRegistry
	}
	return host
}

// credentialSources reads DOCKER_AUTH_CONFIG's content and the file once. The
// content wins where both know a registry.
func credentialSources(o Options) (sources []Source, helpers []string, err error) {
	add := func(origin string, data []byte) error {
		d, err := parseDockerConfig(data)
		if err != nil {
			return fmt.Errorf("registry credentials: %s: %w", origin, err)
		}
		helpers = append(helpers, d.helpers...)
		sources = append(sources, Source{Name: origin, Keychain: d})
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
	return append(sources, o.Sources...), helpers, nil
}
