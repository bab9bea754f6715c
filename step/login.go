// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// addLogin enters a user and password into a docker config file, whose other content stays as it is.
func addLogin(file, registry, username, password string) error {
	whole, err := readObject(file)
	if err != nil {
		return fmt.Errorf("login: %w", err)
	}
	auths := map[string]json.RawMessage{}
	if old, found := whole["auths"]; found {
		if err := json.Unmarshal(old, &auths); err != nil {
			return fmt.Errorf("login: %s: auths: %w", file, err)
		}
	}
	switch registry {
	case "docker.io", "index.docker.io", "registry-1.docker.io":
		registry = "https://index.docker.io/v1/"
	}
	for _, entry := range []struct {
		to    map[string]json.RawMessage
		key   string
		value any
	}{
		{auths, registry, map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(username + ":" + password))}},
		{whole, "auths", auths},
	} {
		if entry.to[entry.key], err = json.Marshal(entry.value); err != nil {
			return fmt.Errorf("login: %w", err)
		}
	}
	text, err := json.MarshalIndent(whole, "", "\t")
	if err != nil {
		return fmt.Errorf("login: %w", err)
	}
	if err := replace(file, text); err != nil {
		return fmt.Errorf("login: %w", err)
	}
	return nil
}

// readObject reads a file that holds a JSON object; one that does not exist is an empty one.
func readObject(file string) (map[string]json.RawMessage, error) {
	object := map[string]json.RawMessage{}
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return object, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &object)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return object, nil
}

// replace writes a file that only its owner may read, wholly or not at all.
func replace(file string, text []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".config-*.json")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}
