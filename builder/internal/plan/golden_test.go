// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/platforms"
	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
)

var update = flag.Bool("update", false, "rewrite the expected plans")

// TestGolden plans every testdata/*.txtar. Its sections are "Dockerfile";
// "request", lines like "target x", "arg K=V", "label K=V", "platform P",
// "build-platform P", "epoch N", "context NAME=VALUE", "ignore PATTERN" and
// "source-epoch N", which is then the time of every source; "image REF [PLATFORM]" with a config for
// each image that exists; and "want", the plan, or "error: " and "excerpt:".
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			checkGolden(t, name)
		})
	}
}

func checkGolden(t *testing.T, name string) {
	t.Helper()
	archive, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string][]byte{}
	for _, f := range archive.Files {
		sections[f.Name] = f.Data
	}
	got := planText(t, sections)
	want := string(sections["want"])
	if *update {
		writeWant(t, name, archive, got)
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("plan differs (-want +got):\n%s", diff)
	}
}

func planText(t *testing.T, sections map[string][]byte) string {
	t.Helper()
	file, err := dockerfile.Parse("Dockerfile", sections["Dockerfile"])
	if err != nil {
		return errorText(err)
	}
	plan, err := New(t.Context(), file, parseRequest(t, sections))
	if err != nil {
		return errorText(err)
	}
	return plan.String()
}

func errorText(err error) string {
	text := "error: " + err.Error() + "\n"
	var located *dockerfile.Error
	if errors.As(err, &located) {
		text += located.Excerpt()
	}
	return text
}

func parseRequest(t *testing.T, sections map[string][]byte) Request {
	t.Helper()
	req := Request{
		BuildArgs:     map[string]string{},
		Labels:        map[string]string{},
		BuildPlatform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		Platform:      ocispec.Platform{OS: "linux", Architecture: "amd64"},
		Resolve:       fakeRegistry(sections),
		ResolveLayout: LayoutFunc(fakeRegistry(sections)),
		Contexts:      map[string]string{},
	}
	var ignore []string
	for line := range strings.Lines(string(sections["request"])) {
		verb, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		key, pair, _ := strings.Cut(value, "=")
		switch verb {
		case "target":
			req.Target = value
		case "arg":
			req.BuildArgs[key] = pair
		case "label":
			req.Labels[key] = pair
		case "platform":
			req.Platform, req.ExplicitPlatform = platforms.MustParse(value), true
		case "build-platform":
			req.BuildPlatform = platforms.MustParse(value)
		case "epoch":
			req.Epoch = seconds(t, value)
		case "context":
			req.Contexts[key] = pair
		case "ignore":
			ignore = append(ignore, value)
		case "source-epoch":
			epoch := seconds(t, value)
			req.SourceEpoch = func(context.Context, EpochSource) (*time.Time, error) { return epoch, nil }
		default:
			t.Fatalf("request: unknown line %q", line)
		}
	}
	if len(ignore) > 0 {
		matcher, err := dockerfile.NewMatcher(ignore)
		if err != nil {
			t.Fatal(err)
		}
		req.Ignored = matcher.Names
	}
	return req
}

func seconds(t *testing.T, value string) *time.Time {
	t.Helper()
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	epoch := time.Unix(n, 0)
	return &epoch
}

// fakeRegistry serves the image sections. A section without a platform answers for all.
func fakeRegistry(sections map[string][]byte) ResolveFunc {
	return func(_ context.Context, ref string, platform ocispec.Platform) (*Image, error) {
		config, ok := sections["image "+ref+" "+platforms.FormatAll(platform)]
		if !ok {
			config, ok = sections["image "+ref]
		}
		if !ok {
			return nil, fmt.Errorf("not found for %s", platforms.FormatAll(platform))
		}
		image := &Image{Ref: ref + "@sha256:feed"}
		if err := json.Unmarshal(config, &image.Config); err != nil {
			return nil, err
		}
		if image.Config.Architecture == "" {
			image.Config.Platform = platform
		}
		return image, nil
	}
}

func writeWant(t *testing.T, name string, archive *txtar.Archive, got string) {
	t.Helper()
	written := false
	for i := range archive.Files {
		if archive.Files[i].Name == "want" {
			archive.Files[i].Data = []byte(got)
			written = true
		}
	}
	if !written {
		archive.Files = append(archive.Files, txtar.File{Name: "want", Data: []byte(got)})
	}
	if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
		t.Fatal(err)
	}
}
