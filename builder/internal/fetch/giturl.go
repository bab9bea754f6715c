// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	"github.com/moby/buildkit/util/gitutil"
)

// Limits of what a git URL names: longer than anything a server allows, short enough for a message.
const (
	maxGitURL = 4096
	maxRef    = 1024
)

// GitURL is a git URL as people write it in an ADD or as a build context, taken apart.
type GitURL struct {
	// Ref is a branch, a tag, a full ref or a commit's SHA; "" is the default branch.
	Ref string
	// Checksum is a commit's SHA or the beginning of one.
	Checksum string
	// Subdir is clean and has no leading slash; "" is the whole repository.
	Subdir string
	// KeepGitDir, Submodules and MTime are nil and "" where the URL does not say.
	KeepGitDir, Submodules *bool
	MTime                  string
	// FetchByCommit asks for Checksum itself, not for what Ref names today.
	FetchByCommit bool
	// Bare says that the URL has no scheme and may mean a local path: github.com/OWNER/REPOSITORY.
	Bare bool

	remote remote
}

// Redacted is the address of the repository without credentials.
func (u *GitURL) Redacted() string { return u.remote.String() }

// ParseGitURL understands both grammars, #REF:SUBDIR and ?ref=REF&subdir=SUBDIR with the further keys, as BuildKit does. isGit says
// whether s is meant as a git URL at all; if it is not, there is an error always. No error quotes credentials.
func ParseGitURL(s string) (u *GitURL, isGit bool, err error) {
	if len(s) > maxGitURL {
		return nil, false, fmt.Errorf("git URL: %w: longer than %d bytes", ErrLimit, maxGitURL)
	}
	ref, isGit, err := dfgitutil.ParseGitRef(s)
	if err != nil && isGit {
		// From the query, which holds no credentials.
		return nil, true, fmt.Errorf("git URL: %s", escape(err.Error()))
	}
	if err != nil {
		// The cause may quote the whole address.
		return nil, false, errors.New("not a git URL")
	}
	raw := ref.Remote
	if ref.IndistinguishableFromLocal {
		raw = "https://" + raw
	}
	r, err := parseRemote(raw)
	if err != nil {
		return nil, true, err
	}
	if err := checkRef(ref.Ref); err != nil {
		return nil, true, err
	}
	if ref.Checksum != "" && !isHex(ref.Checksum) {
		return nil, true, fmt.Errorf("invalid checksum %s for Git URL, expected hex commit hash", escape(ref.Checksum))
	}
	return &GitURL{
		Ref: ref.Ref, Checksum: ref.Checksum, Subdir: cleanSubdir(ref.SubDir),
		KeepGitDir: ref.KeepGitDir, Submodules: ref.Submodules, MTime: ref.MTime,
		FetchByCommit: ref.FetchByCommit, Bare: ref.IndistinguishableFromLocal,
		remote: r,
	}, true, nil
}

// remote is the address of a repository.
type remote struct {
	scheme         string // http, https, ssh or git
	user, password string
	host           string // host[:port]
	// path is as it goes into the request: escaped for http and https.
	path string
}

// parseRemote takes the address of a repository apart. It must be absolute, for nothing on this machine is ever read.
func parseRemote(raw string) (remote, error) {
	g, err := gitutil.ParseURL(raw)
	if err != nil || g.Host == "" {
		return remote{}, errors.New("git URL: not a valid http, https, ssh or git address")
	}
	r := remote{scheme: strings.ToLower(g.Scheme), host: g.Host, path: g.Path}
	if g.User != nil {
		r.user = g.User.Username()
		r.password, _ = g.User.Password()
	}
	if r.isHTTP() {
		r.path = (&url.URL{Path: g.Path}).EscapedPath()
	}
	name := r.hostname()
	for _, part := range []struct{ what, value string }{{"user", r.user}, {"host", name}, {"path", g.Path}} {
		if strings.ContainsFunc(part.value, isControl) || strings.HasPrefix(part.value, "-") {
			return remote{}, fmt.Errorf("git URL: %w: invalid %s", ErrForbidden, part.what)
		}
	}
	if _, err := r.port(); err != nil || name == "" || strings.Trim(g.Path, "/") == "" {
		return remote{}, errors.New("git URL: not a valid http, https, ssh or git address")
	}
	return r, nil
}

// overHTTP is the same repository by http or https.
func (r remote) overHTTP(scheme string) remote {
	r.scheme, r.path = scheme, (&url.URL{Path: r.path}).EscapedPath()
	return r
}

func (r remote) isHTTP() bool { return r.scheme == "http" || r.scheme == "https" }

func (r remote) hostname() string { return (&url.URL{Host: r.host}).Hostname() }

// port returns 0 for the scheme's own.
func (r remote) port() (int, error) {
	p := (&url.URL{Host: r.host}).Port()
	if p == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(p, 10, 16)
	return int(n), err
}

// String has no credentials: it is for people and for the .git directory.
func (r remote) String() string {
	return escape(r.scheme + "://" + r.host + "/" + strings.TrimLeft(r.path, "/"))
}

// endpoint is what the transports take. It has no password: see authorization.
func (r remote) endpoint() *url.URL {
	u := &url.URL{Scheme: r.scheme, Host: r.host, Path: r.path}
	if r.scheme == "ssh" && r.user != "" {
		u.User = url.User(r.user)
	}
	if r.isHTTP() {
		u.Path, _ = url.PathUnescape(r.path) // escaped by us
		u.RawPath = r.path
	}
	return u
}

// authorization is the header value for the credentials in the address itself.
func (r remote) authorization() string {
	if r.user == "" && r.password == "" {
		return ""
	}
	return BasicAuthorization(r.user, r.password)
}

// origin tells who gets a credential: exactly one scheme, host and port.
func (r remote) origin() string {
	n, _ := r.port()
	if defaults := map[string]int{"http": 80, "https": 443, "ssh": 22, "git": 9418}; n == 0 {
		n = defaults[r.scheme]
	}
	return r.scheme + "://" + net.JoinHostPort(strings.ToLower(r.hostname()), strconv.Itoa(n))
}

// sibling resolves the address of a submodule, which may be relative to that of the repository that has it.
func (r remote) sibling(raw string) (remote, error) {
	if !strings.HasPrefix(raw, "./") && !strings.HasPrefix(raw, "../") {
		return parseRemote(raw)
	}
	if strings.ContainsFunc(raw, isControl) {
		return remote{}, fmt.Errorf("git URL: %w: invalid path", ErrForbidden)
	}
	sub := r
	dir := strings.TrimRight(r.path, "/")
	rest := raw
	for {
		if after, ok := strings.CutPrefix(rest, "./"); ok {
			rest = after
			continue
		}
		after, ok := strings.CutPrefix(rest, "../")
		if !ok {
			break
		}
		rest = after
		i := strings.LastIndexByte(dir, '/')
		if i < 0 {
			return remote{}, fmt.Errorf("git URL: %w: a submodule's relative address leads out of its host", ErrForbidden)
		}
		dir = dir[:i]
	}
	if r.isHTTP() {
		rest = (&url.URL{Path: rest}).EscapedPath()
	}
	for _, part := range strings.Split(rest, "/") {
		if part == ".." {
			return remote{}, fmt.Errorf("git URL: %w: a submodule's relative address has a .. inside", ErrForbidden)
		}
	}
	sub.path = dir + "/" + rest
	if strings.Trim(sub.path, "/") == "" {
		return remote{}, fmt.Errorf("git URL: %w: invalid path", ErrForbidden)
	}
	return sub, nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

var hexDigits = regexp.MustCompile(`^[a-fA-F0-9]+$`)

func isHex(s string) bool { return hexDigits.MatchString(s) }

// checkRef holds a ref to git's own rules (git-check-ref-format), whether a user or a server names it.
func checkRef(ref string) error {
	bad := len(ref) > maxRef || strings.HasPrefix(ref, "-") || strings.HasPrefix(ref, "/") || strings.HasSuffix(ref, "/") ||
		strings.HasSuffix(ref, ".") || strings.Contains(ref, "..") || strings.Contains(ref, "@{") || strings.Contains(ref, "//") ||
		strings.ContainsAny(ref, " ~^:?*[\\") || strings.ContainsFunc(ref, isControl) || ref == "@"
	for _, part := range strings.Split(ref, "/") {
		bad = bad || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock")
	}
	if bad {
		return fmt.Errorf("invalid git ref %q", escape(ref))
	}
	return nil
}

// cleanSubdir resolves dots as if the repository were the root.
func cleanSubdir(s string) string {
	var out []string
	for _, part := range strings.Split(s, "/") {
		switch part {
		case "", ".":
		case "..":
			out = out[:max(len(out)-1, 0)]
		default:
			out = append(out, part)
		}
	}
	return strings.Join(out, "/")
}
