// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// layers writes down what the layers of an image hold, one line an entry, for people who want to know why two digests differ.
func layers(t *testing.T, reference string) string {
	t.Helper()
	image, err := testenv.Pull(t.Context(), reference)
	if err != nil {
		return err.Error()
	}
	list, err := image.Layers()
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	if config, err := image.RawConfigFile(); err == nil {
		fmt.Fprintf(&b, "%s\n", config)
	}
	for i, l := range list {
		fmt.Fprintf(&b, "layer %d\n", i+1)
		if err := entries(&b, l); err != nil {
			fmt.Fprintln(&b, err)
		}
	}
	return b.String()
}

func entries(w io.Writer, l v1.Layer) error {
	content, err := l.Uncompressed()
	if err != nil {
		return err
	}
	for r := tar.NewReader(content); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return content.Close()
		}
		if err != nil {
			return err
		}
		sum, _, err := v1.SHA256(r)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%c %04o %d:%d %d %q %q %v %s\n", h.Typeflag, h.Mode, h.Uid, h.Gid, h.ModTime.Unix(), h.Name, h.Linkname, h.PAXRecords, sum.Hex[:12])
	}
}
