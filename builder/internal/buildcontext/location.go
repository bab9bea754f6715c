// SPDX-License-Identifier: Apache-2.0

package buildcontext

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/kaniko-go/kaniko-go/builder/internal/fetch"
)

// Kind says what a location leads to.
type Kind string

// The kinds of locations.
const (
	Dir    Kind = "directory"
	Tar    Kind = "archive"
	Stdin  Kind = "standard input"
	Git    Kind = "git"
	Web    Kind = "http"
	S3     Kind = "s3"
	Google Kind = "gs"
	Azure  Kind = "azure"
)

// Location is where a build context is.
type Location struct {
	Kind Kind
	// Path is that of a directory or an archive on disk.
	Path string
	// URL is the address for Git, Web and Azure. Of Git it is in the grammar of fetch.ParseGitURL.
	URL string
	// Bucket and Key name an object for S3 and Google.
	Bucket, Key string
}

// defaultKey is the object of a bucket that is named alone.
const defaultKey = "context.tar.gz"

// azureHost is the form of the hosts of storage accounts in Azure's clouds.
var azureHost = regexp.MustCompile(`^[a-z0-9-]{3,50}\.blob(\.[a-z0-9-]+)?\.(core\.windows\.net|core\.chinacloudapi\.cn|core\.usgovcloudapi\.net|core\.cloudapi\.de|storage\.azure\.net)$`)

// Locate understands KANIKO_CONTEXT. azure is the address of a storage service in place of Azure's, "" for none. No error
// quotes credentials.
func Locate(s, azure string) (Location, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	switch {
	case s == "-":
		return Location{Kind: Stdin}, nil
	case !ok && isSCP(s):
		return gitLocation(s)
	case !ok:
		return Location{Kind: Dir, Path: s}, nil
	}
	switch strings.ToLower(scheme) {
	case "dir":
		return Location{Kind: Dir, Path: rest}, nil
	case "tar":
		if rest == "stdin" || rest == "-" {
			return Location{Kind: Stdin}, nil
		}
		return Location{Kind: Tar, Path: rest}, nil
	case "s3":
		return bucketLocation(S3, rest)
	case "gs":
		return bucketLocation(Google, rest)
	case "git", "ssh":
		return gitLocation(s)
	case "http", "https":
		return webLocation(s, azure)
	default:
		return Location{}, fmt.Errorf("%s:// is no kind of build context; write a directory, tar://FILE, tar://stdin, git://, ssh://, https://, s3:// or gs://", scheme)
	}
}

// isSCP tells USER@HOST:PATH from a directory.
func isSCP(s string) bool {
	user, rest, ok := strings.Cut(s, "@")
	host, _, ok2 := strings.Cut(rest, ":")
	return ok && ok2 && !strings.ContainsAny(user+host, "/#?") && user != "" && host != ""
}

func bucketLocation(kind Kind, rest string) (Location, error) {
	bucket, key, _ := strings.Cut(rest, "/")
	if bucket == "" {
		return Location{}, errors.New("names no bucket; write " + string(kind) + "://BUCKET/OBJECT")
	}
	if key == "" {
		key = defaultKey
	}
	return Location{Kind: kind, Bucket: bucket, Key: key}, nil
}

func webLocation(s, azure string) (Location, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return Location{}, errors.New("not a URL")
	}
	if azureHost.MatchString(u.Hostname()) || azure != "" && strings.HasPrefix(s, strings.TrimSuffix(azure, "/")+"/") {
		return Location{Kind: Azure, URL: s}, nil
	}
	if _, isGit, _ := fetch.ParseGitURL(s); isGit || strings.Contains(s, "#") {
		return gitLocation(s)
	}
	return Location{Kind: Web, URL: s}, nil
}

// gitLocation understands BuildKit's grammars and kaniko's, URL#REF#COMMIT. Of the latter the commit decides.
func gitLocation(s string) (Location, error) {
	address, fragment, _ := strings.Cut(s, "#")
	if ref, commit, ok := strings.Cut(fragment, "#"); ok {
		if _, _, err := fetch.ParseGitURL(address + "#" + ref); err != nil {
			return Location{}, err
		}
		if commit != "" && !commitName.MatchString(commit) {
			return Location{}, errors.New("git URL: after the second # the whole name of a commit has to be, of 40 or 64 digits")
		}
		if commit != "" {
			ref = commit
		}
		s = address + "#" + ref
	}
	switch _, isGit, err := fetch.ParseGitURL(s); {
	case !isGit:
		return Location{}, errors.New("not a git URL; an http or https address of a repository ends in .git")
	case err != nil:
		return Location{}, err
	}
	return Location{Kind: Git, URL: s}, nil
}

var commitName = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
