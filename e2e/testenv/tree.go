// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/crane"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// Pull reads an image back from a plain-HTTP registry.
func Pull(ctx context.Context, reference string) (v1.Image, error) {
	return crane.Pull(reference, crane.WithContext(ctx), crane.Insecure)
}

// Describe writes down what an image adds to its base, one line a path in order: type, mode, owner, path and content; a path
// that the base has and the image has not is a line "gone PATH". Times are left out. It is the form that expectations are
// kept in.
func Describe(image, base v1.Image) (string, error) {
	have, err := describeTree(image)
	if err != nil {
		return "", err
	}
	below, err := describeTree(base)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if below[name] != have[name] {
			fmt.Fprintf(&b, "%s\n", have[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(below)) {
		if _, ok := have[name]; !ok {
			fmt.Fprintf(&b, "gone %s\n", name)
		}
	}
	return b.String(), nil
}

func describeTree(image v1.Image) (map[string]string, error) {
	stream := mutate.Extract(image)
	defer stream.Close() //nolint:errcheck // read only
	tree := map[string]string{}
	for r := tar.NewReader(stream); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return tree, nil
		}
		if err != nil {
			return nil, err
		}
		name := path.Clean("/" + h.Name)
		if tree[name], err = describeEntry(name, h, r); err != nil {
			return nil, err
		}
	}
}

func describeEntry(name string, h *tar.Header, content io.Reader) (string, error) {
	line := fmt.Sprintf("%04o %d:%d %s", h.Mode&0o7777, h.Uid, h.Gid, name)
	for _, key := range slices.Sorted(maps.Keys(h.PAXRecords)) {
		if attribute, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
			line += fmt.Sprintf(" %s=%q", attribute, h.PAXRecords[key])
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return "dir  " + line, nil
	case tar.TypeSymlink:
		return "link " + line + " -> " + h.Linkname, nil
	case tar.TypeLink:
		return "hard " + line + " = " + path.Clean("/"+h.Linkname), nil
	case tar.TypeReg:
		b, err := io.ReadAll(content)
		if err != nil {
			return "", err
		}
		if len(b) > 200 {
			return fmt.Sprintf("file %s %d bytes sha256:%.8x", line, len(b), sha256.Sum256(b)), nil
		}
		return fmt.Sprintf("file %s %q", line, b), nil
	default:
		return fmt.Sprintf("%c    %s", h.Typeflag, line), nil
	}
}

// DescribeConfig writes down what an image's configuration says beyond its base's: the container configuration without what
// is empty, and the history that was added.
func DescribeConfig(image, base v1.Image) (string, error) {
	config, err := image.RawConfigFile()
	if err != nil {
		return "", err
	}
	below, err := base.ConfigFile()
	if err != nil {
		return "", err
	}
	var all struct {
		Architecture string          `json:"architecture"`
		OS           string          `json:"os"`
		Author       string          `json:"author"`
		Config       json.RawMessage `json:"config"`
		History      []struct {
			CreatedBy  string `json:"created_by"`
			Comment    string `json:"comment"`
			Author     string `json:"author"`
			EmptyLayer bool   `json:"empty_layer"`
		} `json:"history"`
	}
	if err := json.Unmarshal(config, &all); err != nil {
		return "", err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(all.Config, &fields); err != nil {
		return "", err
	}
	var b strings.Builder
	if all.Author != "" {
		fmt.Fprintf(&b, "Author %q\n", all.Author)
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if value := string(fields[name]); !slices.Contains([]string{"null", `""`, "false", "{}", "[]"}, value) {
			fmt.Fprintf(&b, "%s %s\n", name, value)
		}
	}
	if len(all.History) < len(below.History) {
		return "", fmt.Errorf("the image has %d history entries, its base %d", len(all.History), len(below.History))
	}
	for _, h := range all.History[len(below.History):] {
		kind := "layer"
		if h.EmptyLayer {
			kind = "empty"
		}
		fmt.Fprintf(&b, "%s %q\n", kind, h.CreatedBy)
	}
	return b.String(), nil
}
