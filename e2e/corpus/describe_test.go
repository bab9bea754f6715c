// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// description is an image, written down part by part.
type description struct {
	config, history string
	layers          []string // what each layer that is not the base's changes, in the order of its tar
	diffIDs         []string
}

// describer writes images down. A time is "now" when it is the epoch, or, without one, when it is not before the build.
type describer struct {
	epoch time.Time // zero for none
	begun time.Time
	base  map[v1.Hash]bool // diffIDs of the bases
	hide  []string         // pairs for a strings.Replacer: what differs from run to run in texts
}

func (d describer) time(t time.Time) string {
	switch {
	case t.IsZero():
		return "none"
	case !d.epoch.IsZero() && t.Equal(d.epoch), d.epoch.IsZero() && !t.Before(d.begun):
		return "now"
	case !d.epoch.IsZero() && !t.Before(d.begun):
		return "real-time"
	default:
		return t.UTC().Format(time.RFC3339Nano)
	}
}

func (d describer) describe(image v1.Image) (description, error) {
	var r description
	if err := d.describeConfig(image, &r); err != nil {
		return r, fmt.Errorf("configuration: %w", err)
	}
	layers, err := image.Layers()
	if err != nil {
		return r, err
	}
	for i, l := range layers {
		id, err := l.DiffID()
		if err != nil {
			return r, err
		}
		if d.base[id] {
			continue
		}
		text, err := d.describeLayer(l)
		if err != nil {
			return r, fmt.Errorf("layer %d: %w", i, err)
		}
		r.layers, r.diffIDs = append(r.layers, text), append(r.diffIDs, id.String())
	}
	return r, nil
}

func (d describer) describeConfig(image v1.Image, r *description) error {
	raw, err := image.RawConfigFile()
	if err != nil {
		return err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(raw, &all); err != nil {
		return err
	}
	var history []struct {
		Created   time.Time `json:"created"`
		CreatedBy string    `json:"created_by"`
		Comment   string    `json:"comment"`
		Author    string    `json:"author"`
		Empty     bool      `json:"empty_layer"`
	}
	if err := json.Unmarshal(all["history"], &history); err != nil && all["history"] != nil {
		return err
	}
	hide := strings.NewReplacer(d.hide...)
	var b strings.Builder
	for _, h := range history {
		fmt.Fprintf(&b, "%s %q", map[bool]string{true: "empty", false: "layer"}[h.Empty], hide.Replace(h.CreatedBy))
		if h.Comment != "buildkit.dockerfile.v0" {
			fmt.Fprintf(&b, " comment %q", h.Comment)
		}
		if h.Author != "" {
			fmt.Fprintf(&b, " author %q", h.Author)
		}
		fmt.Fprintf(&b, " at %s\n", d.time(h.Created))
	}
	r.history = b.String()
	b.Reset()
	for _, k := range slices.Sorted(maps.Keys(all)) {
		switch k {
		case "history", "rootfs":
		case "created":
			var t time.Time
			if err := json.Unmarshal(all[k], &t); err != nil {
				return err
			}
			if !t.IsZero() { // BuildKit writes null for no time
				fmt.Fprintf(&b, "created %s\n", d.time(t))
			}
		case "config":
			var fields map[string]any
			if err := json.Unmarshal(all[k], &fields); err != nil {
				return err
			}
			for _, f := range slices.Sorted(maps.Keys(fields)) {
				value, err := json.Marshal(fields[f])
				if err != nil {
					return err
				}
				fmt.Fprintf(&b, "config.%s %s\n", f, hide.Replace(string(value)))
			}
		default:
			fmt.Fprintf(&b, "%s %s\n", k, hide.Replace(string(all[k])))
		}
	}
	r.config = b.String()
	return nil
}

func (d describer) describeLayer(l v1.Layer) (string, error) {
	stream, err := l.Uncompressed()
	if err != nil {
		return "", err
	}
	defer stream.Close()
	var b strings.Builder
	for r := tar.NewReader(stream); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return b.String(), nil
		}
		if err != nil {
			return "", err
		}
		line, err := d.entry(h, r)
		if err != nil {
			return "", fmt.Errorf("%s: %w", h.Name, err)
		}
		b.WriteString(line + "\n")
	}
}

// entry is one line: time, type, mode, owner, name, attributes, then the size and content, the target or the device.
func (d describer) entry(h *tar.Header, content io.Reader) (string, error) {
	kind, ok := map[byte]string{
		tar.TypeReg: "file", tar.TypeDir: "dir ", tar.TypeSymlink: "link", tar.TypeLink: "hard",
		tar.TypeFifo: "fifo", tar.TypeChar: "char", tar.TypeBlock: "blk ",
	}[h.Typeflag]
	if !ok {
		return "", fmt.Errorf("a header of type %q", h.Typeflag)
	}
	line := fmt.Sprintf("%s %s %04o %d:%d %q", d.time(h.ModTime), kind, h.Mode, h.Uid, h.Gid, h.Name)
	if h.Uname+h.Gname != "" || !h.AccessTime.IsZero() || !h.ChangeTime.IsZero() {
		line += fmt.Sprintf(" names %q %q, %v, %v", h.Uname, h.Gname, h.AccessTime, h.ChangeTime)
	}
	for _, k := range slices.Sorted(maps.Keys(h.PAXRecords)) {
		if k == "path" || k == "linkpath" || k == "mtime" || k == "size" || k == "uid" || k == "gid" {
			continue
		}
		line += fmt.Sprintf(" %s=%q", k, h.PAXRecords[k])
	}
	switch h.Typeflag {
	case tar.TypeSymlink, tar.TypeLink:
		line += fmt.Sprintf(" -> %q", h.Linkname)
	case tar.TypeChar, tar.TypeBlock:
		line += fmt.Sprintf(" %d,%d", h.Devmajor, h.Devminor)
	case tar.TypeReg:
		data, err := io.ReadAll(content)
		if err != nil {
			return "", err
		}
		if len(data) > 200 {
			return fmt.Sprintf("%s %d bytes %x", line, len(data), sha256.Sum256(data)), nil
		}
		line += fmt.Sprintf(" %d bytes %q", len(data), data)
	}
	return line, nil
}

// lutimes sets both times of a path itself, whatever it is.
func lutimes(path string, t time.Time) error {
	ts := unix.NsecToTimespec(t.UnixNano())
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}
