// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// stepImage is the name that everything in the repository gives to our image, before its tag.
const stepImage = "ghcr.io/kaniko-go/kaniko-go"

// distCommand writes what catalogues and releases take: see catalogue.
func distCommand(_ context.Context, args []string) error {
	f := flag.NewFlagSet("dist", flag.ContinueOnError)
	root := f.String("root", ".", "root of the repository")
	dist := f.String("dist", "dist", "directory that receives everything")
	digest := f.String("digest", "", "digest of the step image; that of plain.oci in the directory if empty")
	version := f.String("version", "", "version of the release; a tag must be that of the files")
	epoch := f.Int64("epoch", 0, "time of the commit, in seconds since 1970")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *digest == "" {
		found, err := layoutDigest(filepath.Join(*dist, "plain.oci"))
		if err != nil {
			return err
		}
		*digest = found
	}
	c, err := readCatalogue(*root, *digest, time.Unix(*epoch, 0).UTC())
	if err != nil {
		return err
	}
	if tagged := regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+$`); tagged.MatchString(*version) && *version != "v"+c.version {
		return fmt.Errorf("the release is %s and the files say v%s: change the version in tasks/internal/generate and run make generate", *version, c.version)
	}
	return c.write(*dist)
}

// layoutDigest is the digest of the one image or index of an OCI layout.
func layoutDigest(dir string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		return "", fmt.Errorf("%w: run make images, or give -digest", err)
	}
	var index struct {
		Manifests []struct {
			Digest string `json:"digest"`
		} `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &index); err != nil {
		return "", fmt.Errorf("%s: %w", dir, err)
	}
	if len(index.Manifests) != 1 {
		return "", fmt.Errorf("%s holds %d images, not 1", dir, len(index.Manifests))
	}
	return index.Manifests[0].Digest, nil
}

// published is one directory of what people install: the object, and what is beside it.
type published struct {
	kind, name string
	// path is that of the object's file in the repository.
	path string
	// files are README.md, samples and tests, by path below the directory, and the object as NAME.yaml.
	files map[string][]byte
}

// catalogue is everything that is published besides binaries and images. The repository names the step image by its tag; here the digest is added.
type catalogue struct {
	version string
	epoch   time.Time
	objects []published
	// contract is catalog.yaml.
	contract []byte
	image    string // with tag and digest
}

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// readCatalogue reads the repository and writes the digest in.
func readCatalogue(root, digest string, epoch time.Time) (*catalogue, error) {
	if !digestForm.MatchString(digest) {
		return nil, fmt.Errorf("%q is not a digest", digest)
	}
	contract, err := os.ReadFile(filepath.Join(root, "catalog.yaml"))
	if err != nil {
		return nil, err
	}
	c := &catalogue{epoch: epoch, contract: contract}
	var files []string
	for _, pattern := range []string{"tasks/*/*.yaml", "stepactions/*/*.yaml", "workflows/*/*.yaml"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	for _, file := range files {
		p, version, err := readPublished(root, file)
		if err != nil {
			return nil, err
		}
		if c.version != "" && c.version != version {
			return nil, fmt.Errorf("%s has the version %s, others %s", file, version, c.version)
		}
		c.version = version
		c.objects = append(c.objects, p)
	}
	if len(c.objects) == 0 {
		return nil, fmt.Errorf("%s: there is nothing to publish", root)
	}
	tagged := stepImage + ":v" + c.version
	c.image = tagged + "@" + digest
	for i := range c.objects {
		for name, content := range c.objects[i].files {
			c.objects[i].files[name] = bytes.ReplaceAll(content, []byte(tagged), []byte(c.image))
		}
	}
	return c, c.rewrite(root)
}

// readPublished reads one object and what is beside it.
func readPublished(root, file string) (published, string, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return published{}, "", err
	}
	var object struct {
		Kind     string `json:"kind"`
		Metadata struct {
			Name   string            `json:"name"`
			Labels map[string]string `json:"labels"`
		} `json:"metadata"`
	}
	if err := yaml.Unmarshal(content, &object); err != nil {
		return published{}, "", fmt.Errorf("%s: %w", file, err)
	}
	version := object.Metadata.Labels["app.kubernetes.io/version"]
	if version == "" {
		return published{}, "", fmt.Errorf("%s: no label app.kubernetes.io/version", file)
	}
	rel, err := filepath.Rel(root, file)
	if err != nil {
		return published{}, "", err
	}
	p := published{kind: object.Kind, name: object.Metadata.Name, path: filepath.ToSlash(rel), files: map[string][]byte{}}
	p.files[filepath.Base(file)] = content
	for _, pattern := range []string{"README.md", "samples/*.yaml", "tests/*.yaml", "tests/*.sh"} {
		beside, err := filepath.Glob(filepath.Join(filepath.Dir(file), pattern))
		if err != nil {
			return published{}, "", err
		}
		for _, name := range beside {
			content, err := os.ReadFile(name)
			if err != nil {
				return published{}, "", err
			}
			below, err := filepath.Rel(filepath.Dir(file), name)
			if err != nil {
				return published{}, "", err
			}
			p.files[filepath.ToSlash(below)] = absolute(content, path.Dir(p.path), version)
		}
	}
	return p, version, nil
}

var relativeLink = regexp.MustCompile(`\]\((\.\./[^)]*)\)`)

// absolute makes links that lead out of a directory of the repository links to the repository's tag.
func absolute(text []byte, dir, version string) []byte {
	return relativeLink.ReplaceAllFunc(text, func(link []byte) []byte {
		target := path.Join(dir, string(relativeLink.FindSubmatch(link)[1]))
		return []byte("](https://github.com/kaniko-go/kaniko-go/blob/v" + version + "/" + target + ")")
	})
}

// target is the path of an object's file in resources.tar.gz: catalogues have a directory for each kind.
func (p published) target() string {
	return strings.ToLower(p.kind) + "s/" + p.name + "/" + path.Base(p.path)
}

func (p published) object() []byte { return p.files[path.Base(p.path)] }

func (p published) ofTekton() bool { return !strings.HasSuffix(p.kind, "WorkflowTemplate") }

// rewrite brings catalog.yaml up to date: image, checksums and paths.
func (c *catalogue) rewrite(root string) error {
	text := string(c.contract)
	for _, p := range c.objects {
		if !p.ofTekton() {
			continue
		}
		before, err := os.ReadFile(filepath.Join(root, p.path))
		if err != nil {
			return err
		}
		old := fmt.Sprintf("filename: %s\n        checksum: %x\n", p.path, sha256.Sum256(before))
		if strings.Count(text, old) != 1 {
			return fmt.Errorf("catalog.yaml does not have %s as it is: run make generate", p.path)
		}
		text = strings.Replace(text, old, fmt.Sprintf("filename: %s\n        checksum: %x\n", p.target(), sha256.Sum256(p.object())), 1)
	}
	c.contract = []byte(strings.ReplaceAll(text, stepImage+":v"+c.version, c.image))
	return nil
}

// write writes everything below dist:
//
//	catalog.yaml, resources.tar.gz   the two assets of a release that catalog-cd takes; the first can be applied, too
//	task/NAME/0.1/..., pipeline/..., stepaction/...   the layout of tektoncd/catalog, whose versions have two numbers, in paths and in labels
//	argo/NAME/...                    a package of Artifact Hub
//	kaniko-go-argo.yaml, kaniko-go-argo-cluster.yaml   the same for kubectl
func (c *catalogue) write(dist string) error {
	files := map[string][]byte{"catalog.yaml": c.contract}
	archive, err := c.resources()
	if err != nil {
		return err
	}
	files["resources.tar.gz"] = archive
	short := strings.Join(strings.Split(c.version, ".")[:2], ".")
	for _, p := range c.objects {
		switch p.kind {
		case "WorkflowTemplate":
			files["kaniko-go-argo.yaml"] = p.object()
			if err := c.argoPackage(files, p); err != nil {
				return err
			}
		case "ClusterWorkflowTemplate":
			files["kaniko-go-argo-cluster.yaml"] = p.object()
		default:
			dir := strings.ToLower(p.kind) + "/" + p.name
			files[dir+"/OWNERS"] = []byte("approvers:\n  - kaniko-go\nreviewers:\n  - kaniko-go\n")
			for name, content := range p.files {
				files[dir+"/"+short+"/"+name] = content
			}
			object, err := relabelled(p.object(), c.version, short)
			if err != nil {
				return fmt.Errorf("%s: %w", p.path, err)
			}
			files[dir+"/"+short+"/"+path.Base(p.path)] = object
		}
	}
	for _, old := range []string{"task", "pipeline", "stepaction", "argo"} {
		if err := os.RemoveAll(filepath.Join(dist, old)); err != nil {
			return err
		}
	}
	for name, content := range files {
		file := filepath.Join(dist, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, content, 0o644); err != nil {
			return err
		}
	}
	fmt.Fprintf(os.Stdout, "%s: %d files, step image %s\n", dist, len(files), c.image)
	return nil
}

// relabelled is an object with another version in its label: a catalogue wants the one that is in the path.
func relabelled(object []byte, from, to string) ([]byte, error) {
	label := func(version string) []byte { return fmt.Appendf(nil, "app.kubernetes.io/version: %q\n", version) }
	if n := bytes.Count(object, label(from)); n != 1 {
		return nil, fmt.Errorf("the label with the version %s is there %d times", from, n)
	}
	return bytes.Replace(object, label(from), label(to), 1), nil
}

// argoPackage adds the directory of a package of the kind "Argo templates".
func (c *catalogue) argoPackage(files map[string][]byte, p published) error {
	dir := "argo/" + p.name + "/"
	for name, content := range p.files {
		if name == path.Base(p.path) {
			name = "manifests.yaml"
		}
		files[dir+name] = content
	}
	about := struct {
		Version     string              `json:"version"`
		Name        string              `json:"name"`
		DisplayName string              `json:"displayName"`
		CreatedAt   string              `json:"createdAt"`
		Description string              `json:"description"`
		License     string              `json:"license"`
		HomeURL     string              `json:"homeURL"`
		Keywords    []string            `json:"keywords"`
		Images      []map[string]string `json:"containersImages"`
		Annotations map[string]string   `json:"annotations"`
	}{
		Version: c.version, Name: p.name, DisplayName: p.name, CreatedAt: c.epoch.Format(time.RFC3339),
		Description: "Builds container images from Dockerfiles and pushes them, without a daemon and without privilege.",
		License:     "Apache-2.0", HomeURL: "https://github.com/kaniko-go/kaniko-go", Keywords: []string{"image", "build", "dockerfile"},
		Images:      []map[string]string{{"name": "kaniko-go", "image": c.image}},
		Annotations: map[string]string{"argo/version": ">= 3.5.0"},
	}
	text, err := yaml.Marshal(about)
	if err != nil {
		return err
	}
	files[dir+"artifacthub-pkg.yml"] = text
	return nil
}

// resources is resources.tar.gz: the files that catalog.yaml names and their READMEs. The same files give the same bytes.
func (c *catalogue) resources() ([]byte, error) {
	members := map[string][]byte{}
	for _, p := range c.objects {
		if !p.ofTekton() {
			continue
		}
		members[p.target()] = p.object()
		readme, ok := p.files["README.md"]
		if !ok {
			return nil, fmt.Errorf("%s: %w", p.path, errNoReadme)
		}
		members[path.Dir(p.target())+"/README.md"] = readme
	}
	return archive(members, c.epoch)
}

var errNoReadme = errors.New("there is no README.md beside it")

// bundleCommand pushes a Tekton bundle of what catalog.yaml in dist installs.
func bundleCommand(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("bundle", flag.ContinueOnError)
	dist := f.String("dist", "dist", "directory with the catalog.yaml that release dist has written")
	epoch := f.String("epoch", "0", "time of the commit, in seconds since 1970")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() == 0 {
		return errors.New("usage: release bundle [-dist DIR] REFERENCES")
	}
	seconds, err := strconv.ParseInt(*epoch, 10, 64)
	if err != nil {
		return fmt.Errorf("-epoch: %w", err)
	}
	list, err := os.ReadFile(filepath.Join(*dist, "catalog.yaml"))
	if err != nil {
		return err
	}
	img, err := bundle(list, time.Unix(seconds, 0).UTC())
	if err != nil {
		return err
	}
	for _, ref := range slices.Compact(f.Args()) {
		if err := pushBundle(ctx, img, ref); err != nil {
			return err
		}
	}
	return nil
}
