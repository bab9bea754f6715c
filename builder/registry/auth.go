// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// dockerConfig is the part of Docker's config.json that holds credentials, by
// normalised key: a host[:port], or that and the beginning of a repository.
type dockerConfig struct {
	auths   map[string]authn.AuthConfig
	helpers map[string]string // host -> name of its credential helper
	store   string            // name of the helper for every other host
}

// lookup returns the credential with the longest key that is the repository, a
// whole-component prefix of it, or its host. The host must match exactly, port
// included: a credential for one never serves another.
func (d dockerConfig) lookup(repo name.Repository) (authn.AuthConfig, bool) {
	host := canonicalHost(repo.RegistryStr())
	key := host + "/" + repo.RepositoryStr()
	for {
		if a, ok := d.auths[key]; ok {
			return a, true
		}
		if key == host {
			return authn.AuthConfig{}, false
		}
		key = key[:strings.LastIndexByte(key, '/')]
	}
}

// helper names the program that the file wants to have asked for a host; "" for none.
func (d dockerConfig) helper(host string) string {
	if h := d.helpers[canonicalHost(host)]; h != "" {
		return h
	}
	return d.store
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
	d := dockerConfig{auths: map[string]authn.AuthConfig{}, helpers: map[string]string{}, store: file.CredsStore}
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
	for host, helper := range file.CredHelpers {
		d.helpers[canonicalKey(host)] = helper
	}
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
