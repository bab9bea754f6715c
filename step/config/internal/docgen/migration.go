// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"text/template"

	"github.com/kaniko-go/kaniko-go/step/config"
)

// migration is the page for those who come from kaniko. What is said about a flag is said in step/config/flags_table.go; the rules and the
// list of differences in what is built are written here.
const migration = `<!-- Generated from step/config by go generate ./step/config. Do not edit. -->

# Coming from kaniko

Change the name of the image and nothing else:

` + "```yaml" + `
image: {name: "ghcr.io/kaniko-go/kaniko-go:debug", entrypoint: [""]}    # was gcr.io/kaniko-project/executor:debug
script:
  - /kaniko/executor --context $CI_PROJECT_DIR --dockerfile $CI_PROJECT_DIR/Dockerfile --destination $IMAGE
` + "```" + `

The binary takes kaniko's flags, under any name. A flag only sets its variable: ` + "`--some-flag VALUE`" + ` is ` + "`KANIKO_SOME_FLAG=VALUE`" + `, and
[configuration.md](configuration.md) says all about variables.

- A flag wins over its variable; ` + "`--destination`, `--build-arg`, `--label` and `--annotation`" + ` add to theirs. A repeated flag makes a list; of another the last
  counts.
- A boolean flag is ` + "`--name`, `--name=true` or `--name=false`" + `, as in kaniko.
- A flag that is not known is an error that suggests the nearest. One that has no meaning here is accepted and noted in the log; one
  that asks for another image than can be made is an error.
- With flags, unknown ` + "`KANIKO_*`" + ` variables cost one line in the log. Without flags they are an error.
- ` + "`FF_KANIKO_*`" + ` feature flags are accepted and noted: what they correct is always right here. ` + "`KANIKO_PRINT_PLAN`, `KANIKO_IGNORE_ASSERTIONS`" + ` and
  ` + "`KANIKO_TELEMETRY_*`" + ` are too.
- Subcommands: ` + "`login REGISTRY -u USER (-p PASSWORD | --password-stdin)`, `push LAYOUT-OR-TARBALL -d REFERENCE`, `index REPOSITORY@DIGEST ... -d REFERENCE`, `version`, `help`" + `.

## Flags that set a variable

| flag | variable | difference |
|---|---|---|
{{range .Set}}| {{flag .}} | {{code .Variable}} | {{cell .Note}} |
{{end}}
## Flags without a meaning here

Accepted, with one line in the log.

| flag | why |
|---|---|
{{range .Noted}}| {{flag .}} | {{cell (sentence .Note)}} |
{{end}}
## Flags that are refused

An error, as an image made without them would not be the one that was asked for. Set to ` + "`false`" + ` they have no meaning.

| flag | why |
|---|---|
{{range .Refused}}| {{flag .}} | {{cell (sentence .Note)}} |
{{end}}
## The warmer

Under the name ` + "`warmer`" + ` the binary is ` + "`KANIKO_MODE=warm`" + `: ` + "`/kaniko/warmer`" + ` of the image. It takes the flags above, with other letters:

| flag | variable | difference |
|---|---|---|
{{range .Warmer}}| {{flag .}} | {{code .Variable}} | {{cell (sentence .Note)}} |
{{end}}
The default of ` + "`--cache-dir`" + ` is ` + "`/cache`" + `, as in kaniko. What kaniko's warmer has left there is not read.

## Login

| flag | meaning |
|---|---|
{{range .Login}}| {{flag .}} | Of ` + "`login`" + ` alone, which writes ` + "`$DOCKER_CONFIG/config.json`" + `. |
{{end}}
## Flags that kaniko does not have

{{range $i, $f := .Own}}{{if $i}}, {{end}}{{flag $f}}{{end}}: see the variables of these names.

## What is built: where kaniko and BuildKit disagree

BuildKit's way wins, so that an image does not depend on who built it.

| what | kaniko | here, as in BuildKit |
|---|---|---|
| media types | those of the base image | OCI's; ` + "`--image-format=docker`" + ` for Docker's |
| ` + "`.dockerignore`" + ` | not with a context from git; also matched against paths of other stages | with every context; never for ` + "`COPY --from`" + `; ` + "`NAME.dockerignore`" + ` beside the Dockerfile wins |
| ` + "`/var/run`" + ` | left out of the image | a path like any other |
| owner of what COPY and ADD make | the USER in force | 0:0, unless ` + "`--chown`" + ` says otherwise |
| a link named as the source of COPY | copied as a link | the file that it leads to is copied |
| ` + "`COPY --exclude`, `--parents`, `--link`, `ADD --checksum`, `ADD` of git" + ` | ignored or not known | done |
| owner, devices, attributes in base images | only files, directories and links; capabilities alone of all attributes | everything |
| ` + "`FROM --platform`" + `, platform arguments in FROM | ignored, empty | as documented |
| ` + "`RUN --mount`" + ` | binds are copies, ` + "`from=`, `tmpfs` and `ssh`" + ` are skipped with a warning | mounts, read-only unless ` + "`rw`" + `; cache mounts with ` + "`id`, `sharing`, `from`" + ` |
| ` + "`RUN --network`, `--security`" + ` | ignored | done, or an error where the container does not permit it |
| heredoc with ` + "`#!`" + ` | given to sh | executed by its interpreter |
| ` + "`USER name:group`" + ` in RUN | the group is lost | both |
| ` + "`# escape=`, `# syntax=`" + ` | partly, ignored | as documented; a frontend other than docker/dockerfile is an error |
| ` + "`HEALTHCHECK --start-interval`, `MAINTAINER`, `EXPOSE` of a range" + ` | dropped or literal | in the configuration |
| history | layers alone, without times; with a cache other layers than without | every instruction, with times; the same layers with and without a cache |
| a layer's content | parents of what changed, and files that new links point to | what changed |
| hard links | lost between stages | kept |
| annotations of the base's manifest | handed on, by flag | not handed on |
| unsupported syntax | a warning | an error that names the line |

## What is done otherwise

| what | kaniko | here |
|---|---|---|
| RUN | in the container's own root, beside the builder's credentials | in a root and namespaces of its own where the container permits it, else in place ([security](../README.md#what-it-needs-of-its-container)) |
| an image without RUN | unpacks the base, as root | unpacks nothing, as any user |
| result files | written after each push | written last, after the image was read back; none after a failure |
| exit code | 1 | tells what kind of failure it was, see [configuration.md](configuration.md#exit-codes) |
| a stage that nothing needs | built, in old versions | never built |
| the layer cache | one image for each instruction, by tags | one manifest for all stages with one base; kaniko's caches are not read |
| credential helpers | programs in the image | in the binary; no other program is executed |
| standard output | the log | free; the log is on standard error |
`

func renderMigration() ([]byte, error) {
	page := struct{ Set, Noted, Refused, Own, Warmer, Login []config.Flag }{Warmer: config.WarmerFlags(), Login: config.LoginFlags()}
	for _, f := range config.Flags() {
		switch {
		case !f.Kaniko:
			page.Own = append(page.Own, f)
		case f.Refused:
			page.Refused = append(page.Refused, f)
		case f.Variable == "":
			page.Noted = append(page.Noted, f)
		default:
			page.Set = append(page.Set, f)
		}
	}
	tmpl, err := template.New("migration").Funcs(template.FuncMap{
		"code": code, "cell": cell,
		"flag": func(f config.Flag) string {
			if f.Short != "" {
				return code("--"+f.Name) + ", " + code("-"+f.Short)
			}
			return code("--" + f.Name)
		},
		"sentence": func(s string) string {
			if s == "" || strings.HasSuffix(s, ".") {
				return s
			}
			return strings.ToUpper(s[:1]) + s[1:] + "."
		},
	}).Parse(migration)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = tmpl.Execute(&out, page)
	return out.Bytes(), err
}
