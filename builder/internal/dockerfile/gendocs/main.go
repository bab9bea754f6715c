// SPDX-License-Identifier: Apache-2.0

// Command gendocs writes docs/dockerfile.md: the language as it is supported and
// what differs from BuildKit. Its tables are the only place where that is written down; a test
// holds them against the flags that BuildKit's parser knows. What the corpus sees differ is read from
// its own list, which that corpus holds to be complete.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
)

// row is one line of the table. Since is the frontend version that made it stable, "" for always.
type row struct {
	instruction, flag, since, behaviour string
}

func language() []row {
	return []row{
		{"(file)", "", "", "At most 1 MiB, 1000 stages, 10,000 instructions; a byte order mark is skipped. `# syntax=` accepts `docker/dockerfile*`, `# escape=` backslash or backtick, `# check=` as below. Heredocs for RUN, COPY, ADD and ONBUILD of those."},
		{"FROM", "", "", "An image, a stage above, `scratch`, or a named context. Only what the target needs is looked up."},
		{"FROM", "--platform", "", "Global arguments only. Without it the platform asked for."},
		{"ARG", "", "", "Several on a line; each sees those before it. Global ones are seen by FROM and by an ARG without a default in a stage."},
		{"ENV", "", "", "All values see the environment before the instruction. The form without `=` warns."},
		{"LABEL", "", "", "Labels of the build win."},
		{"RUN", "", "", "Shell or JSON form; a heredoc alone is the script, executed itself if it begins with `#!`."},
		{"RUN", "--mount", "1.2", "`bind`, `cache`, `tmpfs`, `secret`, `ssh` with every option; `from` is a stage by name, an image or a named context, never an index."},
		{"RUN", "--network", "1.3", "`default`, `none`, `host`."},
		{"RUN", "--security", "1.20", "`sandbox`. `insecure` is refused."},
		{"RUN", "--device", "", "Refused (labs in BuildKit)."},
		{"COPY", "", "", "From the build context, by the rules of BuildKit's copy; wildcards by path element."},
		{"COPY", "--from", "", "A stage by index or name, a named context, or an image for the target platform. No variables."},
		{"COPY", "--chown", "", "Names are those of the stage's own files; numbers only with `--link`."},
		{"COPY", "--chmod", "1.14 (symbolic)", "Octal up to 07777, or symbolic."},
		{"COPY", "--link", "1.4", "A layer that does not depend on those below. Without effect together with `--chmod`, as in BuildKit."},
		{"COPY", "--parents", "1.20", "Keeps directories, those after `/./` where the path has it; `**` matches any number of them."},
		{"COPY", "--exclude", "1.19", "Patterns as in an ignore file, relative to the directory that is copied."},
		{"ADD", "", "", "As COPY; archives among local files are unpacked (gzip, bzip2, xz, zstd, by content). Also http(s) URLs and git repositories, by `#ref:directory` or query."},
		{"ADD", "--chown", "", "As COPY."},
		{"ADD", "--chmod", "1.14 (symbolic)", "As COPY."},
		{"ADD", "--link", "1.4", "As COPY."},
		{"ADD", "--exclude", "1.19", "As COPY; not for what is unpacked."},
		{"ADD", "--checksum", "1.6", "For a single URL (`sha256:...`) or repository (a commit or the beginning of one)."},
		{"ADD", "--keep-git-dir", "1.1", "Keeps `.git`."},
		{"ADD", "--unpack", "1.17", "`true` unpacks URLs too, `false` nothing."},
		{"WORKDIR", "", "", "Made if missing, for the USER in force. An absolute path is recorded as written."},
		{"USER", "", "", "Looked up when a RUN needs it."},
		{"EXPOSE", "", "", "`port[-port][/tcp|udp|sctp]`; variables may hold several."},
		{"VOLUME", "", "", "Configuration only: later writes are kept."},
		{"CMD", "", "", ""},
		{"ENTRYPOINT", "", "", "Drops a CMD inherited from the base."},
		{"SHELL", "", "", "JSON form only."},
		{"STOPSIGNAL", "", "", "A name or a number."},
		{"HEALTHCHECK", "", "", "`NONE` or `CMD`."},
		{"HEALTHCHECK", "--interval", "", ""},
		{"HEALTHCHECK", "--timeout", "", ""},
		{"HEALTHCHECK", "--start-period", "", ""},
		{"HEALTHCHECK", "--start-interval", "", ""},
		{"HEALTHCHECK", "--retries", "", ""},
		{"ONBUILD", "", "", "Runs in the stage that builds on this one; may bring in stages and images that nothing needed before."},
		{"MAINTAINER", "", "", "Sets the author; deprecated."},
	}
}

// difference is something that is not as in BuildKit, on purpose.
type difference struct{ what, why string }

func differences() []difference {
	return []difference{
		{"`# syntax=` with a frontend that is not `docker/dockerfile*` is refused.", "BuildKit runs that image as a program; here the language is built in and nothing is run to read it."},
		{"`RUN --security=insecure` is refused with `security.insecure is not allowed`, `RUN --device` too.", "No RUN gets more than its isolation."},
		{"A heredoc whose name is no plain file name, such as `../../x`, is refused.", "The file would land in another directory."},
		{"`ADD --checksum` with `github.com/x/y` is refused.", "That is a local path for ADD; BuildKit accepts the flag and verifies nothing."},
		{"A target may be given by index too.", "kaniko's users do."},
		{"`COPY --from=N` counts stages alone.", "In BuildKit images that COPY or mounts name are counted behind the stages, in an order that nobody can foresee."},
		{"A stage that a named context takes the place of is not read any further: what its instructions copy from is neither looked up nor checked. Its configuration has the platform that was asked for.", "BuildKit looks all of it up, and leaves the platform empty."},
		{"A trigger that copies from the stage it fires in, or mounts it, is refused as a circle.", "BuildKit builds something that depends on the order of its maps."},
		{"ONBUILD triggers of an image that is only copied from are not followed.", "They have no effect; BuildKit looks up what they name, and never ends where that is the image itself."},
		{"A mount over `/` is refused however it is spelt (`//`, `/x/..`).", "BuildKit refuses `/` alone."},
		{"Mounts of secrets and agents with a relative target lie below `/`.", "BuildKit leaves it to the runtime, which does that."},
		{"A cache mount with `from` and one of `mode`, `uid`, `gid` begins empty.", "So it does in BuildKit, which makes an empty directory in a copy of the source; here there is no copy."},
		{"`# check=error=true` names the rules in order of name, and only once.", "BuildKit's order is any."},
		{"Variables of more than 1 MiB in all, expansions of more than 1 MiB, and plans of more than 64 MiB are refused.", "A small file could ask for all memory otherwise."},
		{"`RUN []` fails a check as it fails a build.", "BuildKit finds out when it builds."},
		{"The check InvalidBaseImagePlatform has a line for images in mounts too, names the base as it is written, and looks at what a stage copies from that only a trigger brought in.", "In BuildKit that depends on how often it had to look."},
		{"Of several mistakes another one may be reported first.", "BuildKit reads images at the same time, and the first answer wins."},
		{"`--parents` and `--exclude` never fail because of what is in the way of a file that is not copied.", "BuildKit looks at the target of everything that it passes."},
		{"With `--parents`, a file in front of `/./` has nothing below it: not found, or nothing where there are wildcards.", "BuildKit does one thing with the build context and another one with a stage."},
		{"RUN sees no `OTEL_*` variables and no `TRACEPARENT`.", "There is no tracing to report to."},
		{"A base with a layer that is foreign (`urls`, nondistributable) or encrypted, and a Windows image, are refused: exit code 3 and the layer's name.", "BuildKit fetches foreign layers from where they say, and fails on encrypted ones when it unpacks them. An image on them could not be pushed as a whole."},
		{"Only Linux images can be built.", ""},
	}
}

// seen is one line of the corpus's list.
type seen struct{ cases, what, why string }

// readSeen reads the corpus's list: a pattern of cases, what differs, and the reason, which is the rest of the line.
func readSeen(name string) ([]seen, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var list []seen
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.SplitN(line, " ", 3)
		if len(fields) != 3 {
			return nil, fmt.Errorf("%s: no reason in %q", name, line)
		}
		list = append(list, seen{fields[0], fields[1], fields[2]})
	}
	return list, nil
}

func document(corpus []seen) string {
	var b strings.Builder
	b.WriteString("<!-- Generated by builder/internal/dockerfile/gendocs. Do not edit. -->\n# The Dockerfile language\n\n" +
		"The language is that of BuildKit's stable frontend 1.26; the parser is BuildKit's own. What a plan makes of it is\n" +
		"compared with BuildKit's `dockerfile2llb` for thousands of Dockerfiles on every run of `e2e/oracle`.\n\n" +
		"| instruction | flag | since | how it behaves |\n|---|---|---|---|\n")
	for _, r := range language() {
		name := r.flag
		if name != "" {
			name = "`" + name + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.instruction, name, r.since, strings.ReplaceAll(r.behaviour, "|", "\\|"))
	}
	b.WriteString(`
## Variables

` + "All forms: `$v ${v} ${v:-w} ${v-w} ${v:+w} ${v+w} ${v:?m} ${v?m} ${v#p} ${v##p} ${v%p} ${v%%p} ${v/p/r} ${v//p/r}`." + `
Expanded are paths and --chown, --chmod, --checksum of COPY and ADD and the bodies of their heredocs, ENV, LABEL, defaults of ARG, EXPOSE,
USER, VOLUME, WORKDIR, STOPSIGNAL, the values of --mount but for "from", and FROM with its platform. Nothing else is.

Predefined: TARGETPLATFORM, TARGETOS, TARGETOSVERSION, TARGETARCH, TARGETVARIANT, the same with BUILD, TARGETSTAGE; and
HTTP_PROXY, HTTPS_PROXY, FTP_PROXY, NO_PROXY, ALL_PROXY, which every RUN sees in both spellings and which leave no trace in the image.

| build argument | meaning |
|---|---|
| SOURCE_DATE_EPOCH | seconds; or ` + "`context`" + `, a named context, or a stage that is one remote ADD onto scratch: then the time of that source |
| BUILDKIT_CACHE_MOUNT_NS | begins the names of cache mounts |
| BUILDKIT_SANDBOX_HOSTNAME | the host name that RUN sees |
| BUILDKIT_DOCKERFILE_CHECK | takes the place of ` + "`# check=`" + ` |
| BUILDKIT_SYNTAX | as ` + "`# syntax=`" + ` |
| BUILDKIT_CONTEXT_KEEP_GIT_DIR | keeps .git of a git build context |
| BUILDKIT_MULTI_PLATFORM | an index for one platform too |

## Base images

Docker's and OCI's media types. Layers are plain tar, gzip of any number of members (so estargz too) or zstd of any number of frames (so
zstd:chunked too), told apart by their content; at most 512 of them. Every layer is checked against its digest, its size and its diffID before
a byte of it is used. The header of a hard link is applied to the file that it names, as unpacking does.

## Build checks

All 22 of BuildKit, with its names and texts. ` + "`# check=skip=A,B;error=true;experimental=all`" + ` at the top of the file, or ` + "`# check=skip=A`" + `
above an instruction.

## What differs from BuildKit on purpose

`)
	for _, d := range differences() {
		b.WriteString("- " + strings.TrimSpace(d.what+" "+d.why) + "\n")
	}
	b.WriteString(`
The corpus in ` + "`e2e/corpus`" + ` builds every case with BuildKit and compares files, owners, modes, times, contents, configuration, history and layers.
It fails on everything that differs and is not in this list, and on every line here that nothing needs.

| case | what differs | why |
|---|---|---|
`)
	for _, s := range corpus {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", s.cases, strings.ReplaceAll(s.what, ",", ", "), strings.ReplaceAll(s.why, "|", "\\|"))
	}
	return b.String()
}

func main() {
	out := flag.String("o", "", "the file to write")
	corpus := flag.String("corpus", "", "the corpus's list of differences")
	flag.Parse()
	list, err := readSeen(*corpus)
	if err == nil {
		err = os.WriteFile(*out, []byte(document(list)), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gendocs:", err)
		os.Exit(1)
	}
}
