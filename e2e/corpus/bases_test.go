// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// bases are the images that Dockerfiles of the corpus begin with, by the build argument that names them.
func bases(ctx context.Context) (map[string]v1.Image, error) {
	busybox, err := testenv.Busybox(ctx)
	if err != nil {
		return nil, err
	}
	images := map[string]v1.Image{"BASE": busybox}
	for name, make := range map[string]func(v1.Image) (v1.Image, error){
		"CONFIGURED": configured, "LAYERED": layered, "LINKED": linked, "MANY": many, "ODD": odd, "GONE": gone, "DOCKERTYPES": dockerTypes,
		"PLAIN": with(plain), "ZSTD": with(frames), "MEMBERS": with(members), "ESTARGZ": with(estargz), "ZSTDCHUNKED": with(zstdChunked),
	} {
		if images[name], err = make(busybox); err != nil {
			return nil, fmt.Errorf("base %s: %w", name, err)
		}
	}
	return images, nil
}

// at is the time of everything in the bases.
var at = time.Unix(1690000000, 0)

// configured has everything in its configuration that a base may have.
func configured(busybox v1.Image) (v1.Image, error) {
	config, err := busybox.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Author, config.Created = "base's author", v1.Time{Time: at}
	config.History = []v1.History{{Created: v1.Time{Time: at}, CreatedBy: "base layer", Comment: "by hand"}, {Created: v1.Time{Time: at}, CreatedBy: "base setting", EmptyLayer: true}}
	config.Config = v1.Config{
		Env: []string{"PATH=/opt:/bin", "BASE=env", "OTHER=x"}, User: "nobody", WorkingDir: "/tmp", Cmd: []string{"base-cmd"}, Entrypoint: []string{"base-entry"},
		Labels: map[string]string{"base": "label", "both": "base"}, Volumes: map[string]struct{}{"/base-volume": {}}, ExposedPorts: map[string]struct{}{"1/tcp": {}},
		StopSignal: "SIGUSR1", Shell: []string{"/bin/ash", "-c"}, Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "true"}, Interval: time.Second, Retries: 2},
		OnBuild: []string{"LABEL onbuild=fired", "RUN echo $BASE > /tmp/onbuild"}, Hostname: "dropped", Domainname: "dropped", ArgsEscaped: true,
	}
	return mutate.ConfigFile(busybox, config)
}

// layered has upper layers that remove and hide what lower ones have.
func layered(busybox v1.Image) (v1.Image, error) {
	lower, err := layer(tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}, tar.Header{Name: "d/kept", Typeflag: tar.TypeReg, Mode: 0o644}, tar.Header{Name: "d/gone", Typeflag: tar.TypeReg, Mode: 0o644},
		tar.Header{Name: "o/", Typeflag: tar.TypeDir, Mode: 0o755}, tar.Header{Name: "o/hidden", Typeflag: tar.TypeReg, Mode: 0o644}, tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o600, Uid: 5, Gid: 6})
	if err != nil {
		return nil, err
	}
	upper, err := layer(tar.Header{Name: "d/.wh.gone", Typeflag: tar.TypeReg}, tar.Header{Name: "o/.wh..wh..opq", Typeflag: tar.TypeReg}, tar.Header{Name: "o/shown", Typeflag: tar.TypeReg, Mode: 0o644},
		tar.Header{Name: "no/dir/header", Typeflag: tar.TypeReg, Mode: 0o644})
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(busybox, lower, upper)
}

// linked has a layer with another name for a file of a lower one.
func linked(busybox v1.Image) (v1.Image, error) {
	lower, err := layer(tar.Header{Name: "h/", Typeflag: tar.TypeDir, Mode: 0o755}, tar.Header{Name: "h/one", Typeflag: tar.TypeReg, Mode: 0o640, Uid: 7})
	if err != nil {
		return nil, err
	}
	upper, err := layer(tar.Header{Name: "h/two", Typeflag: tar.TypeLink, Linkname: "h/one", Mode: 0o640, Uid: 7})
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(busybox, lower, upper)
}

// many has more layers than one old mount call takes.
func many(busybox v1.Image) (v1.Image, error) {
	layers := make([]v1.Layer, 200)
	for i := range layers {
		var err error
		if layers[i], err = layer(tar.Header{Name: fmt.Sprintf("layer-%03d", i), Typeflag: tar.TypeReg, Mode: 0o644}); err != nil {
			return nil, err
		}
	}
	return mutate.AppendLayers(busybox, layers...)
}

// odd has what is seldom in a layer.
func odd(busybox v1.Image) (v1.Image, error) {
	capability := string([]byte{0, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}) // cap_net_bind_service=p
	l, err := layer(
		tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o711, Uid: 8, Gid: 9},
		tar.Header{Name: "./odd/fifo", Typeflag: tar.TypeFifo, Mode: 0o620, Gid: 5},
		tar.Header{Name: "odd/null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3},
		tar.Header{Name: "odd/sticky", Typeflag: tar.TypeDir, Mode: 0o3777, Uid: 60000, Gid: 60001},
		tar.Header{Name: "odd/" + strings.Repeat("a-directory-with-a-long-name/", 10) + "name", Typeflag: tar.TypeReg, Mode: 0o644},
		tar.Header{Name: "odd/new\nline and space", Typeflag: tar.TypeReg, Mode: 0o644},
		tar.Header{Name: "odd/capability", Typeflag: tar.TypeReg, Mode: 0o755, PAXRecords: map[string]string{"SCHILY.xattr.security.capability": capability}},
		tar.Header{Name: "odd/twice", Typeflag: tar.TypeDir, Mode: 0o700}, tar.Header{Name: "odd/twice", Typeflag: tar.TypeReg, Mode: 0o600, Uid: 1},
		tar.Header{Name: "odd/dangling", Typeflag: tar.TypeSymlink, Linkname: "/no/such/thing", Mode: 0o777, Uid: 3},
		tar.Header{Name: "odd/again", Typeflag: tar.TypeSymlink, Linkname: "dangling", Mode: 0o777}, tar.Header{Name: "odd/linked", Typeflag: tar.TypeLink, Linkname: "odd/dangling", Mode: 0o777, Uid: 3},
		tar.Header{Name: "/odd/absolute", Typeflag: tar.TypeReg, Mode: 0o4711, Uid: 2})
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(busybox, l)
}

// gone has a whiteout of what no lower layer has, in a directory that none has.
func gone(busybox v1.Image) (v1.Image, error) {
	l, err := layer(tar.Header{Name: "new/", Typeflag: tar.TypeDir, Mode: 0o755}, tar.Header{Name: "new/.wh.nothing", Typeflag: tar.TypeReg}, tar.Header{Name: "new/a", Typeflag: tar.TypeReg, Mode: 0o644})
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(busybox, l)
}

// dockerTypes has Docker's media types.
func dockerTypes(busybox v1.Image) (v1.Image, error) {
	layers, err := busybox.Layers()
	if err != nil {
		return nil, err
	}
	rc, err := layers[0].Compressed()
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(rc)
	if err != nil {
		return nil, err
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }, tarball.WithMediaType(types.DockerLayer))
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.DockerManifestSchema2), types.DockerConfigJSON), l)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config.OS, config.Architecture = "linux", runtime.GOARCH
	return mutate.ConfigFile(image, config)
}
