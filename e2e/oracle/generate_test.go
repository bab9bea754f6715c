// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
)

// generator makes up a Dockerfile line by line. Most lines are valid, so that most files get as far as a plan.
type generator struct {
	*rand.Rand
	b      strings.Builder
	stages []string
	// tame leaves out lines that are likely to be refused.
	tame bool
}

func generate(r *rand.Rand) *fixture {
	g := &generator{Rand: r}
	g.tame = g.chance(75)
	g.header()
	for range 1 + g.IntN(4) {
		g.stage()
	}
	f := newFixture(g.b.String())
	f.any = []byte(g.pick(busybox, busybox, busybox,
		`{"architecture":"arm64","os":"linux","variant":"v8","config":{"User":"u:g","Shell":["/bin/bash","-c"],"WorkingDir":"rel/./x","Env":["A=1","PATH="]},"rootfs":{"type":"layers","diff_ids":["sha256:1111"]}}`,
		`{"rootfs":{"type":"layers"}}`))
	if g.chance(20) {
		// Not the image for all: BuildKit never ends when an image's trigger copies from an image with that very trigger.
		f.images["docker.io/library/busybox:latest"] = []byte(
			`{"config":{"OnBuild":["COPY --from=alpine x /ob","ENV OB=$A","RUN --mount=from=alpine,target=/m x"]},"rootfs":{"type":"layers","diff_ids":["sha256:1111"]}}`)
	}
	g.ask(f)
	return f
}

func (g *generator) pick(options ...string) string { return options[g.IntN(len(options))] }

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

// maybe gives one of the options in some percent of cases, else nothing.
func (g *generator) maybe(percent int, options ...string) string {
	if !g.chance(percent) {
		return ""
	}
	return g.pick(options...)
}

func (g *generator) line(format string, args ...any) {
	text := fmt.Sprintf(format+"\n", args...)
	if g.tame && (mistake.MatchString(text) || len(g.stages) < 2 && strings.Contains(text, "from=s0")) {
		return
	}
	g.b.WriteString(text)
}

// mistake finds most of what makes a line invalid or useless.
var mistake = regexp.MustCompile(`from=(\$A|9|s2|S1|0|1)|network=bad|security=x|chmod=(99|77777|x |\$M)|link=maybe|--wrong|--form|--link --link` +
	`|git@host|COPY.*https|ONBUILD (FROM|ONBUILD)|SIGNOPE|(SHELL|STOPSIGNAL|shell|stopsignal) |EXPOSE (x|3-1|70000|80/\n)|"a", 1\]|timeout=1x|retries=-1|VOLUME .*\$` +
	`|\?needed|:\?\}|NOPE|FROM.*\$A|mode=[91]\b|size=bad|required=x|gid=x|=maybe|bnd|tpye|flag|lokced|target=/[, ]|checksum=|bogus|tag=a&|bind,.*required` +
	`|^(COPY|ADD) (--\S+ )*a\n|sharing=shared,type|SOURCE_DATE|unpack .*r.git|chown=(user|\$A|:g) --.*link|bind.*id=|ssh,.*source|secret,.*source`)

// ask makes up what the build is asked for.
func (g *generator) ask(f *fixture) {
	f.target = g.maybe(10, "s0", "S1", "s2", "nope")
	if g.tame {
		f.target = g.maybe(5, "s0", "S0")
	}
	f.platform = g.maybe(15, "linux/arm64", "linux/amd64", "linux/arm/v7")
	f.epoch = g.maybe(10, "0", "1700000123")
	for range g.IntN(3) {
		f.args[g.pick("A", "B", "C", "V", "http_proxy", "HTTPS_PROXY", "TARGETARCH", "BUILDKIT_CACHE_MOUNT_NS", "BUILDKIT_SANDBOX_HOSTNAME", "UNUSED")] = g.pick("", "x", "one two", "busybox", "linux/arm64", "a$b")
	}
	if g.chance(5) {
		f.args["BUILDKIT_DOCKERFILE_CHECK"] = g.pick("skip=all", "error=true", "experimental=all", "skip=UndefinedVar;error=false")
	}
	if g.chance(5) {
		f.args["SOURCE_DATE_EPOCH"] = g.pick("", "5", "context", "s0", "named", "x y")
	}
	if g.chance(10) {
		f.labels[g.pick("l", "m")] = g.pick("", "v w")
	}
	if g.chance(15) {
		f.contexts[g.pick("s0", "s1", "busybox", "alpine", "named", "named::linux/arm64", "busybox::linux/amd64")] = g.pick("docker-image://other", "docker-image://scratch", "/dir", "https://example.com/f.tgz", "https://example.com/r.git#main:sub",
			"oci-layout://layout@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "docker-image://Bad:::")
	}
	if g.chance(10) {
		f.ignore = append(f.ignore, g.pick("a", "*", "**/*.o", "dir/", "/b"), g.pick("x", "!a", "dir/sub"))
	}
}

func (g *generator) header() {
	switch g.IntN(20) {
	case 0:
		g.line("# escape=`")
	case 1:
		g.line("# syntax=docker/dockerfile:1")
	case 2:
		g.line("# check=%s", g.pick("skip=all", "error=true", "skip=UndefinedVar,JSONArgsRecommended", "experimental=all", "skip=x;error=false;experimental=all"))
	}
	for range g.IntN(4) {
		g.comment()
		g.line("ARG %s", g.pick("A", "A=busybox", "B=$A", "B=${A:-alpine}", "V=1 W=${V}.2", "V", "PLATFORM=linux/arm64", "EMPTY=", "TAG=latest",
			"SOURCE_DATE_EPOCH", "SOURCE_DATE_EPOCH=7", "TARGETOS", "A=${A?needed}"))
	}
}

func (g *generator) comment() {
	if g.chance(8) {
		g.line("# %s", g.pick("A some words", "check=skip=UndefinedVar", "check=skip=all", "s0 is a stage", "check=wrong", "nothing"))
	}
}

func (g *generator) stage() {
	name := fmt.Sprintf("s%d", len(g.stages))
	g.comment()
	base := g.pick("busybox", "busybox", "busybox", "scratch", "alpine:3", "$A", "${B:-busybox}", "busybox:${TAG:-1}", "reg.io:5000/x/y@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
	if len(g.stages) > 0 && g.chance(50) {
		base = g.pick(g.stages...)
	}
	platform := g.maybe(15, "--platform=$BUILDPLATFORM ", "--platform=$TARGETPLATFORM ", "--platform=linux/arm64 ", "--platform=${PLATFORM:-linux/amd64} ", "--platform=$NOPE ")
	from, as := "FROM", "AS"
	if g.chance(5) {
		from, as = g.pick("from", "From"), g.pick("as", "As")
	}
	if g.chance(80) {
		alias := name
		if g.chance(5) {
			alias = g.pick("S0", "context", "s0", "Mixed", "amd64-x")
		}
		g.line("%s %s%s %s %s", from, platform, base, as, alias)
	} else {
		g.line("%s %s%s", from, platform, base)
	}
	g.stages = append(g.stages, name)
	for range g.IntN(9) {
		g.comment()
		g.instruction("")
	}
}

func (g *generator) instruction(prefix string) {
	word := func(name string) string {
		if g.chance(3) {
			return prefix + strings.ToLower(name)
		}
		return prefix + name
	}
	switch g.IntN(20) {
	case 0, 1, 2:
		g.run(word("RUN"))
	case 3, 4, 5:
		g.copy(word("COPY"))
	case 6:
		g.add(word("ADD"))
	case 7, 8:
		g.line("%s %s", word("ENV"), g.pick("E=1", "E=$A", "A=env B='$A' C=\"$A x\"", "PATH=/x:$PATH", "legacy some $A value", "V=${V:+set}", "E=${A#b*}", "E=${A//u/o}", "API_KEY=x", "E=${MISSING}", "E=\\$A", "E=${A:?}"))
	case 9, 10:
		g.line("%s %s", word("ARG"), g.pick("A", "B", "A=local", "V=${A}", "C D=1 E=$D", "TARGETARCH TARGETPLATFORM", "BUILDOS TARGETSTAGE", "TOKEN", "http_proxy", "SOURCE_DATE_EPOCH", "BUILDKIT_SBOM_SCAN_STAGE=true", "A=", "W=$MISSPELT", "TARGETVARIANT=v1"))
	case 11:
		g.line("%s %s", word("LABEL"), g.pick("a=b", "a=$A b=\"c d\"", "l legacy $A", "$A=x", "a=''", "m=over"))
	case 12:
		g.line("%s %s", word("WORKDIR"), g.pick("/w", "rel", "/a/../b/", "$A", "..", "/", "/w/$V/x", "\"quoted dir\"", "./."))
	case 13:
		g.line("%s %s", word("USER"), g.pick("root", "1000", "1000:1000", "$A", "user:group", ":5"))
	case 14:
		g.line("%s %s", word("EXPOSE"), g.pick("80", "80/tcp 443/UDP", "$V", "1-3/udp", "127.0.0.1:80:8080", "8080:80", "80/", "x", "${PORTS:-80 90}", "3-1", "70000"))
	case 15:
		g.line("%s %s", word("CMD"), g.pick("[\"a\", \"b\"]", "a $A", "[]", "[\"a\", 1]", "[not json", "exec \"x y\""))
		if g.chance(30) {
			g.line("%s %s", word("ENTRYPOINT"), g.pick("[\"/e\"]", "e x", "[]"))
		}
	case 16:
		g.line("%s %s", word("VOLUME"), g.pick("/v", "[\"/a b\", \"$A\"]", "/x /y", "$MISSING"))
	case 17:
		g.line("%s %s", word("HEALTHCHECK"), g.pick("NONE", "CMD x", "--interval=5s --retries=3 CMD [\"a\"]", "--timeout=1x CMD a", "--start-interval=2s --start-period=1m CMD a $A", "--retries=-1 CMD a"))
	case 18:
		g.line("%s %s", word(g.pick("SHELL", "STOPSIGNAL", "MAINTAINER")), g.pick("[\"/bin/bash\", \"-c\"]", "SIGTERM", "9", "me $A", "SIGNOPE"))
	case 19:
		if prefix == "" {
			g.instruction("ONBUILD ")
		} else {
			g.line("%s%s", prefix, g.pick("ENV X=$A", "FROM x", "ONBUILD RUN x", "RUN --mount=type=bind,from=s0,target=/m x"))
		}
	}
}

func (g *generator) run(word string) {
	flags := ""
	for g.chance(35) {
		flags += "--mount=" + g.mount() + " "
	}
	flags += g.maybe(5, "--network=none ", "--network=host ", "--network=default ", "--network=bad ") + g.maybe(3, "--security=sandbox ", "--security=x ")
	switch g.IntN(8) {
	case 0:
		g.line("%s %s[\"a\", \"$A\"]", word, flags)
	case 1:
		g.line("%s %s<<%s\n%secho $A\n%s", word, flags, g.pick("EOF", "-EOF", "'EOF'"), g.maybe(50, "#!/bin/x\n", "\t#!x\n", "\t"), "EOF")
	case 2:
		g.line("%s %scat <<A <<-B > f\nx\nA\n\ty $A\n\tB", word, flags)
	case 3:
		g.line("%s %sa && \\\n%s  b", word, flags, g.maybe(40, "\n", "# comment\n"))
	default:
		g.line("%s %s%s", word, flags, g.pick("make", "echo \"$A\" '${B}'", "x  y   z", "[ -f x ]", "a\\ b"))
	}
}

// mount makes up the value of --mount, keys in any order.
func (g *generator) mount() string {
	var keys []string
	add := func(percent int, options ...string) {
		if key := g.maybe(percent, options...); key != "" {
			keys = append(keys, key)
		}
	}
	from := []string{"from=s0", "from=S1", "from=busybox", "from=0", "from=named", "from=$A", "from=scratch"}
	switch g.IntN(6) {
	case 0:
		add(90, "type=cache", "type=cache", "type=cache", "type=CACHE")
		add(50, "id=c", "id=$A", "id=")
		add(30, "sharing=locked", "sharing=private", "sharing=shared", "sharing=lokced")
		add(20, "mode=0770", "uid=5", "gid=6", "mode=9")
		add(15, from...)
		add(15, "source=/sub", "src=x/../y")
	case 1:
		keys = append(keys, "type=secret")
		add(60, "id=s", "id=$A")
		add(30, "env=E", "env=$A", "env=")
		add(20, "required", "required=true", "required=x", "required=0")
		add(20, "mode=0444", "uid=1", "gid=x")
		add(10, "source=src")
	case 2:
		keys = append(keys, "type=ssh")
		add(40, "id=a")
		add(20, "required", "mode=600", "uid=3")
		add(5, "source=x")
	case 3:
		add(90, "type=tmpfs")
		add(30, "size=64m", "size=1G", "size=bad", "size=10")
	default:
		add(70, "type=bind", "type=bnd", "type=${T:-bind}")
		add(60, from...)
		add(40, "source=a", "src=/x/y", "source=$A/z", "source=..")
		add(20, "rw", "ro", "readwrite=false", "readonly=true", "rw=maybe", "required")
		add(4, "mode=1", "sharing=shared", "tpye=bind", "id=x", "flag")
	}
	add(85, "target=/m", "dst=/m/n", "destination=rel", "target=$A", "target=/$V/x", "target=/", "TARGET=/u", "target=../up")
	if g.chance(10) {
		g.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	}
	return strings.Join(keys, ",")
}

func (g *generator) copyFlags() string {
	return g.maybe(15, "--chown=1:2 ", "--chown=$A ", "--chown=user ", "--chown=1: ", "--chown=:g ", "--chown=root:root ") +
		g.maybe(12, "--chmod=755 ", "--chmod=u=rwX,go=rX ", "--chmod=99 ", "--chmod=$M ", "--chmod=+x ", "--chmod=77777 ", "--chmod=x ") +
		g.maybe(15, "--link ", "--link=false ", "--link=maybe ") +
		g.maybe(10, "--exclude=*.o ", "--exclude=a --exclude=!b ", "--exclude=$A ")
}

func (g *generator) copy(word string) {
	flags := g.copyFlags()
	flags += g.maybe(35, "--from=s0 ", "--from=S1 ", "--from=0 ", "--from=1 ", "--from=busybox ", "--from=named ", "--from=$A ", "--from=9 ", "--from=scratch ", "--from=s2 ")
	flags += g.maybe(10, "--parents ", "--parents=false ")
	flags += g.maybe(1, "--wrong ", "--form=s0 ", "--link --link ")
	g.line("%s %s%s", word, flags, g.pick(
		"a /", "a b dir/", "$A /x/$V", ". .", "[\"a b\", \"/c d\"]", "*.go src/", "../x /abs/../y", "a/./b/c /p/", "**/*.txt /t", "/ /root", "a", "dir/* $MISSING",
		"https://example.com/x /", "git@host:x.git /", "a ./", "a \"\"", "<<F /f\nhello $A\nF", "<<'F' a <<-G /d/\nraw $A\nF\n\tchomped ${V:-v}\n\tG", "./a/../../b \\\n  /multi"))
}

func (g *generator) add(word string) {
	flags := g.copyFlags()
	flags += g.maybe(15, "--checksum=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 ", "--checksum=abc ", "--checksum=$A ")
	flags += g.maybe(10, "--keep-git-dir ", "--keep-git-dir=false ") + g.maybe(10, "--unpack ", "--unpack=false ")
	flags += g.maybe(1, "--from=s0 ", "--parents ")
	g.line("%s %s%s", word, flags, g.pick(
		"a.tar /", "https://example.com/f.tgz /x/", "https://example.com /", "https://example.com/$A?q=1#frag dir/", "http://example.com/r.git /g",
		"https://example.com/r.git?ref=v1&subdir=d /g", "https://example.com/r.git#main:sub g", "https://example.com/r.git?checksum=abc&keep-git-dir=1 /g",
		"https://example.com/r.git?bogus=1 /g", "https://example.com/r.git?tag=a&branch=b /g", "github.com/x/y /g", "https://example.com/r.git?submodules=false /g",
		"a https://example.com/f /d/", "https://example.com/a https://example.com/r.git /d/", "<<F /f\n$A\nF", "$A /", "HTTPS://example.com/x /"))
}
