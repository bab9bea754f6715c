// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// TestLinkHeaders holds that the last header of a file with several names is true of all names.
func TestLinkHeaders(t *testing.T) {
	capability := map[string]string{"SCHILY.xattr.security.capability": "c", "SCHILY.xattr.user.kept": "k"}
	file := tar.Header{Name: "a", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 3, PAXRecords: capability}
	tests := []struct {
		name    string
		headers []tar.Header
		want    string
	}{
		{"the same", []tar.Header{file, {Name: "b", Typeflag: tar.TypeLink, Linkname: "a", Mode: 0o4755, Uid: 3, PAXRecords: capability}}, "4755 3 map[security.capability:c user.kept:k]"},
		{"another owner and mode", []tar.Header{file, {Name: "b", Typeflag: tar.TypeLink, Linkname: "a", Mode: 0o600, Uid: 5}}, "0600 5 map[user.kept:k]"},
		{"the last of three", []tar.Header{
			file,
			{Name: "b", Typeflag: tar.TypeLink, Linkname: "a", Mode: 0o600},
			{Name: "c", Typeflag: tar.TypeLink, Linkname: "b", Mode: 0o640, PAXRecords: map[string]string{"SCHILY.xattr.user.more": "m"}},
		}, "0640 0 map[user.kept:k user.more:m]"},
		{"a link has no mode", []tar.Header{{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "x", Mode: 0o777}, {Name: "b", Typeflag: tar.TypeLink, Linkname: "a", Mode: 0o600, Uid: 2}}, "0777 2 map[]"},
		{"a name that is something else by now", []tar.Header{
			file,
			{Name: "b", Typeflag: tar.TypeLink, Linkname: "a", Mode: 0o600},
			{Name: "other", Typeflag: tar.TypeLink, Linkname: "b", Mode: 0o600},
			{Name: "other", Typeflag: tar.TypeReg, Mode: 0o1000},
		}, "0600 0 map[user.kept:k]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			for _, h := range tt.headers {
				if err := w.WriteHeader(&h); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			in, err := Ingest(t.Context(), newStore(t), remote{static.NewLayer(b.Bytes(), types.OCIUncompressedLayer), digestOf(t, b.Bytes()), b.Bytes()}, true)
			if err != nil {
				t.Fatal(err)
			}
			tr, err := in.Index.Apply(tree.Empty())
			if err != nil {
				t.Fatal(err)
			}
			names := map[*tree.Inode]int{}
			err = tr.Walk(func(p string, ino *tree.Inode) error {
				if p == "" || p == "other" {
					return nil
				}
				names[ino]++
				if d := cmp.Diff(tt.want, fmt.Sprintf("%04o %d %v", ino.Mode, ino.UID, ino.Xattrs)); d != "" {
					t.Errorf("%s (-want +got):\n%s", p, d)
				}
				return nil
			})
			if err != nil || len(names) != 1 {
				t.Errorf("%d files, error %v; want one with all names", len(names), err)
			}
		})
	}
}
