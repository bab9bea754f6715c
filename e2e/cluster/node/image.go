// SPDX-License-Identifier: Apache-2.0

package node

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kaniko-go/kaniko-go/e2e/cluster/programs"
)

// image is a program of this machine as an image of one layer.
type image struct {
	reference  string
	files      map[string]string // path in the image: path here
	links      map[string]string // symbolic ones
	entrypoint []string
	user       string
}

// systemImages are the images of everything that runs in the cluster's own pods.
func systemImages(ctx context.Context, set *programs.Set) ([]image, error) {
	shell, err := busybox(ctx)
	if err != nil {
		return nil, err
	}
	git := shell
	git.reference, git.entrypoint, git.files = GitImage, []string{"git"}, maps.Clone(shell.files)
	if err := addGit(ctx, git.files); err != nil {
		return nil, err
	}
	images := []image{
		shell, git,
		{reference: PauseImage, files: map[string]string{"pause": set.Pause}, entrypoint: []string{"/pause"}},
		// Its Deployment says runAsNonRoot, which wants a number.
		{reference: argoImage("workflow-controller"), files: map[string]string{"bin/workflow-controller": set.Path("workflow-controller")}, entrypoint: []string{"workflow-controller"}, user: "8737"},
		{reference: argoImage("argoexec"), files: map[string]string{"bin/argoexec": set.Path("argoexec")}, entrypoint: []string{"argoexec"}},
	}
	for _, program := range []string{"controller", "webhook", "events", "resolvers", "entrypoint", "nop", "workingdirinit", "sidecarlogresults"} {
		in := "/ko-app/" + program
		// Their released images are on a base whose user is this one.
		i := image{reference: tektonImage(program), files: map[string]string{in: set.Path(program)}, entrypoint: []string{in}, user: "65532"}
		if program == "resolvers" {
			i.files["sbin/tini"] = "/usr/bin/tini-static"
			if err := addGit(ctx, i.files); err != nil {
				return nil, err
			}
		}
		images = append(images, i)
	}
	return images, nil
}

// busybox has a link for every applet; it is Tekton's shell image and the tests' own.
func busybox(ctx context.Context) (image, error) {
	out, err := exec.CommandContext(ctx, "busybox", "--list").Output()
	if err != nil {
		return image{}, fmt.Errorf("busybox: %w (on Debian as root: e2e/cluster/packages.sh)", err)
	}
	i := image{reference: BusyboxImage, files: map[string]string{"bin/busybox": "/bin/busybox"}, links: map[string]string{}, entrypoint: []string{"/bin/sh"}}
	for _, applet := range strings.Fields(string(out)) {
		if applet != "busybox" {
			i.links["bin/"+applet] = "busybox"
		}
	}
	return i, nil
}

// addGit adds git with its libraries.
func addGit(ctx context.Context, files map[string]string) error {
	files["usr/bin/git"] = "/usr/bin/git"
	out, err := exec.CommandContext(ctx, "ldd", "/usr/bin/git").Output()
	if err != nil {
		return fmt.Errorf("libraries of git: %w", err)
	}
	for _, word := range strings.Fields(string(out)) {
		if strings.HasPrefix(word, "/") {
			files[strings.TrimPrefix(word, "/")] = word
		}
	}
	return nil
}

// push makes the image and puts it into the cluster's registry.
func (i image) push(ctx context.Context) error {
	text, err := i.tar()
	if err != nil {
		return fmt.Errorf("image %s: %w", i.reference, err)
	}
	// Not compressed: the way is short, and compressing half a gigabyte takes most of the time that starting the cluster takes.
	made, err := mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1), mutate.Addendum{
		Layer: static.NewLayer(text, types.OCIUncompressedLayer), MediaType: types.OCIUncompressedLayer,
	})
	if err != nil {
		return err
	}
	config, err := made.ConfigFile()
	if err != nil {
		return err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{Entrypoint: i.entrypoint, User: i.user, Env: []string{"PATH=/usr/bin:/bin:/sbin"}}
	if made, err = mutate.ConfigFile(made, config); err != nil {
		return err
	}
	ref, err := name.ParseReference(i.reference)
	if err != nil {
		return err
	}
	return remote.Write(ref, made, remote.WithContext(ctx))
}

func (i image) tar() ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	i.directories(w)
	accounts := "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
	put(w, tar.Header{Name: "etc/passwd", Mode: 0o644}, strings.NewReader(accounts), int64(len(accounts)))
	groups := "root:x:0:\nnobody:x:65534:\n"
	put(w, tar.Header{Name: "etc/group", Mode: 0o644}, strings.NewReader(groups), int64(len(groups)))
	for in, file := range i.files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		put(w, tar.Header{Name: strings.TrimPrefix(in, "/"), Mode: 0o755}, bytes.NewReader(data), int64(len(data)))
	}
	for from, to := range i.links {
		_ = w.WriteHeader(&tar.Header{Name: from, Linkname: to, Typeflag: tar.TypeSymlink, Mode: 0o777})
	}
	return out.Bytes(), w.Close()
}

// directories writes the parents of all files, and /tmp.
func (i image) directories(w *tar.Writer) {
	seen := map[string]bool{"etc": true, "root": true}
	for in := range i.files {
		for dir := path.Dir(strings.TrimPrefix(in, "/")); dir != "."; dir = path.Dir(dir) {
			seen[dir] = true
		}
	}
	names := make([]string, 0, len(seen))
	for dir := range seen {
		names = append(names, dir)
	}
	slices.Sort(names)
	for _, dir := range names {
		_ = w.WriteHeader(&tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o755})
	}
	_ = w.WriteHeader(&tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777})
}

// put adds a file; the tar is in memory, and its Close reports what went wrong.
func put(w *tar.Writer, h tar.Header, content io.Reader, size int64) {
	h.Size, h.Typeflag = size, tar.TypeReg
	if w.WriteHeader(&h) == nil {
		_, _ = io.Copy(w, content)
	}
}

// pushLayout puts an image for this machine, the only one of an OCI layout, into the registry.
func pushLayout(ctx context.Context, dir, reference string) error {
	index, err := layout.ImageIndexFromPath(filepath.Clean(dir))
	if err != nil {
		return err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	if len(manifest.Manifests) != 1 {
		return fmt.Errorf("%s has %d images, not one", dir, len(manifest.Manifests))
	}
	ref, err := name.ParseReference(reference)
	if err != nil {
		return err
	}
	of := manifest.Manifests[0]
	if of.MediaType.IsIndex() {
		nested, err := index.ImageIndex(of.Digest)
		if err != nil {
			return err
		}
		return remote.WriteIndex(ref, nested, remote.WithContext(ctx))
	}
	made, err := index.Image(of.Digest)
	if err != nil {
		return err
	}
	return remote.Write(ref, made, remote.WithContext(ctx))
}
