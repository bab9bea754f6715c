// SPDX-License-Identifier: Apache-2.0

// Package results writes what a pipeline reads after a build: Tekton's and
// Argo's result files, kaniko's digest files, what the build checks found, the
// one-line cause of a failure and the progress file. It knows neither how an image was made nor where its
// paths came from, and it reads no environment. The order of use is RemoveStale
// and Probe at start, Check before the push, Write as the very last thing;
// where nothing is built, WriteLint takes the place of the last two.
package results

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// TektonLimit is the size in bytes of a container's termination message, in
// which Tekton carries all results of a step together with its own data.
const TektonLimit = 4096

// Outputs says where results go. An empty path is an output that nobody asked for.
type Outputs struct {
	// Dir receives the files IMAGE_DIGEST, IMAGE_URL, IMAGE_REF and IMAGES, and
	// SOURCE_COMMIT where there is one, or LINT.json of WriteLint.
	Dir string
	// DigestFile receives the digest.
	DigestFile string
	// NameFile receives REPOSITORY@DIGEST, TagFile REPOSITORY:TAG@DIGEST, one
	// line for each destination.
	NameFile, TagFile string
	// Limit is the most bytes that the results of Dir may take in Tekton's
	// message; 0 is no limit.
	Limit int
}

// Image is what was built.
type Image struct {
	Digest v1.Hash
	// Destinations are the references that were pushed to, as the user gave
	// them; none without a push.
	Destinations []string
	// SourceCommit is the commit that the image was made of, "" if it was made of
	// none.
	SourceCommit string
}

// file is one result, in memory.
type file struct {
	path, content string
}

// names lists the results of Dir in the order in which they are written.
func names() []string { return []string{"IMAGE_DIGEST", "IMAGE_URL", "IMAGE_REF", "IMAGES"} }

// commitName is the file of Dir that says what the image was made of.
const commitName = "SOURCE_COMMIT"

// lintName is the file of Dir that says what the build checks found.
const lintName = "LINT.json"

// Check reports, before anything is pushed, destinations whose results could
// not be written or would not fit into Limit.
func (o Outputs) Check(destinations []string) error {
	// Every digest has the same length, and every commit but those of rare repositories.
	digest := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}
	files, err := o.results(Image{Digest: digest, Destinations: destinations, SourceCommit: strings.Repeat("0", 40)})
	if err != nil || o.Limit == 0 || o.Dir == "" {
		return err
	}
	size, err := messageSize(files)
	if err != nil {
		return err
	}
	if size > o.Limit {
		return fmt.Errorf("the results for %d destinations take %d bytes and Tekton carries at most %d: give fewer or shorter destinations",
			len(destinations), size, o.Limit)
	}
	return nil
}

// messageSize is the length of the message that Tekton's entrypoint writes for
// the files: one entry for each result and one for the time of the start.
func messageSize(files []file) (int, error) {
	type entry struct {
		Key   string `json:"key"`
		Value string `json:"value"`
		Type  int    `json:"type"`
	}
	const taskResult, internal = 1, 3
	entries := []entry{{"StartedAt", "2006-01-02T15:04:05.000Z", internal}}
	for _, f := range files {
		entries = append(entries, entry{filepath.Base(f.path), f.content, taskResult})
	}
	message, err := json.Marshal(entries)
	return len(message), err
}

// Write writes all outputs for img as one set: each file is prepared under
// another name, then all are put in place. On an error none of them is left.
// A link, FIFO or empty directory of a result's name is replaced, never
// followed. Files have mode 0644: Tekton and Argo may read them as another user.
func (o Outputs) Write(img Image) error {
	files, err := o.results(img)
	if err != nil {
		return err
	}
	digestFiles, err := o.digestFiles(img)
	if err != nil {
		return err
	}
	if err := writeSet(append(digestFiles, files...)); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}

// WriteLint writes LINT.json, which says what the build checks found, into the
// directory dir; nothing if dir is empty. It is written as Write writes, and
// whether the checks found anything or not. json is not looked at. Tekton and
// its limit have no part in it: it is a file, not a result that a Task declares.
func WriteLint(dir string, json []byte) error {
	if dir == "" {
		return nil
	}
	if err := writeSet([]file{{filepath.Join(dir, lintName), string(json)}}); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}

// results makes the files of Dir. Without destinations the names are there and
// empty: whoever consumes them finds them, and Tekton Chains signs nothing.
func (o Outputs) results(img Image) ([]file, error) {
	refs, err := parse(img.Destinations)
	if err != nil {
		return nil, err
	}
	if o.Dir == "" {
		return nil, nil
	}
	var url, ref string
	if len(refs) > 0 {
		url, ref = img.Destinations[0], refs[0].Context().Digest(img.Digest.String()).Name()
	}
	var images []string
	for _, r := range refs {
		if image := r.Context().Digest(img.Digest.String()).Name(); !slices.Contains(images, image) {
			images = append(images, image)
		}
	}
	content := []string{img.Digest.String(), url, ref, strings.Join(images, "\n")}
	var files []file
	for i, n := range names() {
		files = append(files, file{filepath.Join(o.Dir, n), content[i]})
	}
	if img.SourceCommit != "" {
		files = append(files, file{filepath.Join(o.Dir, commitName), img.SourceCommit})
	}
	return files, nil
}

// digestFiles makes kaniko's files, in kaniko's form.
func (o Outputs) digestFiles(img Image) ([]file, error) {
	refs, err := parse(img.Destinations)
	if err != nil {
		return nil, err
	}
	var repos, tags strings.Builder
	for _, r := range refs {
		fmt.Fprintf(&repos, "%s@%s\n", r.Context().Name(), img.Digest)
		fmt.Fprintf(&tags, "%s@%s\n", r.Name(), img.Digest)
	}
	files := []file{
		{o.DigestFile, img.Digest.String()},
		{o.NameFile, repos.String()},
		{o.TagFile, tags.String()},
	}
	return slices.DeleteFunc(files, func(f file) bool { return f.path == "" }), nil
}

// hostCharacters are those of host names and addresses with a port.
const hostCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]"

func parse(destinations []string) ([]name.Tag, error) {
	var tags []name.Tag
	for _, d := range destinations {
		tag, err := name.NewTag(d)
		if err != nil {
			return nil, fmt.Errorf("results: %w", err)
		}
		// Who reads the results splits them at commas and white space; the name package lets hosts have both.
		if host := tag.RegistryStr(); strings.Trim(host, hostCharacters) != "" {
			return nil, fmt.Errorf("results: destination %q: %q is no host", d, host)
		}
		tags = append(tags, tag)
	}
	return tags, nil
}

// paths lists every file that Write or WriteLint would write.
func (o Outputs) paths() []string {
	var list []string
	for _, p := range []string{o.DigestFile, o.NameFile, o.TagFile} {
		if p != "" {
			list = append(list, p)
		}
	}
	if o.Dir != "" {
		for _, n := range append(names(), commitName, lintName) {
			list = append(list, filepath.Join(o.Dir, n))
		}
	}
	return list
}

// RemoveStale removes what an earlier run left under the names of the outputs,
// so that a build that fails leaves no results.
func (o Outputs) RemoveStale() error {
	var errs []error
	for _, p := range o.paths() {
		if err := remove(p); err != nil {
			errs = append(errs, fmt.Errorf("result of an earlier build: %w", err))
		}
		leftovers, err := filepath.Glob(filepath.Join(escapeGlob(filepath.Dir(p)), tempPrefix+"*"))
		if err != nil {
			errs = append(errs, err)
		}
		for _, l := range leftovers {
			if err := remove(l); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// escapeGlob makes a path match itself.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// Probe finds out, by writing and removing a file, that every output can be
// written. It makes missing directories. Its error names each place that
// cannot be written and why.
func (o Outputs) Probe() error {
	var errs []error
	if o.Dir != "" {
		if err := probe(o.Dir); err != nil {
			errs = append(errs, fmt.Errorf("results directory %s cannot be written: %w", o.Dir, cause(err)))
		}
	}
	for _, p := range []string{o.DigestFile, o.NameFile, o.TagFile} {
		if p == "" || writableInPlace(p) {
			continue
		}
		if err := probe(filepath.Dir(p)); err != nil {
			errs = append(errs, fmt.Errorf("directory of digest file %s cannot be written: %w", p, cause(err)))
		}
	}
	return errors.Join(errs...)
}

// cause drops the path from an error, which would be that of a temporary file.
func cause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

func probe(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// A full disk takes an empty file and no byte of content.
	tmp, err := prepare(file{filepath.Join(dir, "probe"), "probe"})
	if err != nil {
		return err
	}
	return os.Remove(tmp)
}
