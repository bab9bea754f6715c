// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"slices"
	"strings"
)

// The kinds of flags.
const (
	KindValue = "value"
	KindBool  = "true or false"
	KindList  = "list"
)

// Flag describes one flag to those who generate documents from it.
type Flag struct {
	// Name is without dashes; Short is one letter, "" if there is none.
	Name, Short string
	// Variable is what the flag sets; "" if it has no meaning here.
	Variable string
	// Kind is one of the kinds. A list's flag may be repeated.
	Kind string
	// Kaniko tells that kaniko has the flag too.
	Kaniko bool
	// Note says in what the flag differs from kaniko's, or why it has no meaning here.
	Note string
	// Refused flags are an error, because to do without what they ask for would give another image.
	Refused bool
	// Desc is the description of the variable.
	Desc string

	apply func(a *Arguments, value string)
}

// Flags lists all flags of the executor: first kaniko's that set a variable, in
// the order of the reference, then kaniko's others, then those that kaniko has not.
func Flags() []Flag {
	var kaniko, own []Flag
	for _, v := range Variables() {
		if !strings.HasPrefix(v.Name, Prefix+"_") {
			continue
		}
		f := Flag{Name: strings.TrimPrefix(v.Flag, "--"), Variable: v.Name, Kind: kindOf(v.Type), Desc: v.Desc, Kaniko: v.Flag != ""}
		if f.Name == "" {
			f.Name = strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(v.Name, Prefix+"_"), "_", "-"))
		}
		f.Short = shorts()[f.Name]
		f.Note = differences()[f.Name]
		f.apply = translations()[f.Name]
		if f.Kaniko {
			kaniko = append(kaniko, f)
		} else {
			own = append(own, f)
		}
	}
	// A variable may come to have the name of a flag that had no meaning before.
	others := slices.DeleteFunc(withoutVariable(), func(f Flag) bool {
		return slices.ContainsFunc(kaniko, func(k Flag) bool { return k.Name == f.Name }) ||
			slices.ContainsFunc(own, func(o Flag) bool { return o.Name == f.Name })
	})
	return slices.Concat(kaniko, others, own)
}

func kindOf(typeName string) string {
	switch typeName {
	case "list":
		return KindList
	case "true or false":
		return KindBool
	default:
		return KindValue
	}
}

func shorts() map[string]string {
	return map[string]string{"dockerfile": "f", "context": "c", "destination": "d", "verbosity": "v", "bucket": "b"}
}

// differences says in what flags differ from kaniko's, for docs/migration.md.
func differences() map[string]string {
	return map[string]string{ //nolint:gosec // words for a document, no credentials
		"context":                          "The default is the working directory, which in our image is kaniko's default, /workspace. All of kaniko's kinds, and more: docs/contexts.md. git:// is fetched without its history.",
		"bucket":                           "Only where --context is not given, as with kaniko when its value is empty.",
		"git":                              "Submodules are fetched unless recurse-submodules=false. Several may be given with commas.",
		"context-sub-path":                 "Holds for every context, not only for those given with a scheme.",
		"dockerfile":                       "May be an http or https URL. NAME.dockerignore beside the Dockerfile is read.",
		"target":                           "Of several names, A,B, only the first is built, which is the one that kaniko pushes.",
		"build-arg":                        "A KEY without value that the environment does not have is left out; kaniko makes it empty.",
		"annotation":                       "With the Docker format an error, as its manifests have none.",
		"ignore-path":                      "Of changes by RUN only. COPY to such a path is not ignored.",
		"digest-file":                      "A path; an https URL is an error in this version. Written only after everything else has succeeded.",
		"compression-level":                "-1 is the default level of the compressor; kaniko's is its fastest.",
		"compression":                      "zstd with the Docker format is an error; kaniko writes gzip.",
		"image-format":                     "The default is oci; kaniko's is that of the base image.",
		"reproducible":                     "Layers of the base image stay as they are. SOURCE_DATE_EPOCH sets another time.",
		"kaniko-dir":                       "Only what the build stores. The binary is not moved.",
		"force":                            "Has meaning only where RUN shares the container's root: other people's files there are moved away for the time of the build. A build outside of a container needs no flag.",
		"cache-repo":                       "May be given twice, for a registry and a directory.",
		"cache-ttl":                        "The same default, 336h.",
		"cache-dir":                        "Also filled by builds, not only by the warmer. /cache is used where it exists and --cache is given; there is no other default.",
		"image":                            "Of the warmer.",
		"credential-helpers":               "A cloud is asked only about its own registries. KANIKO_<HOST>_USER means one host: docs/credentials.md.",
		"insecure":                         "Plain HTTP only where HTTPS is not offered.",
		"skip-tls-verify-pull":             "Works; kaniko ignores it.",
		"push-ignore-immutable-tag-errors": "The image is in the repository by its digest all the same.",
		"push-retry":                       "Retries of a request, not of the whole push. Without the flag it is retried for five minutes.",
		"image-download-retry":             "Retries of a request, not of the whole image. Without the flag it is retried for five minutes.",
		"log-format":                       "color is taken for text.",
		"verbosity":                        "fatal and panic are taken for error.",
		"cache":                            "Turns on COPY and ADD layers too, which cost nothing here.",
		"dryrun":                           "Prints our plan to standard output.",
		"custom-platform":                  "RUN for another architecture is an error unless the machine can run its programs.",
		"secret":                           "The image's own file at that path is kept.",
	}
}

// translations are the flags whose value is not the variable's.
func translations() map[string]func(*Arguments, string) {
	return map[string]func(*Arguments, string){
		"target": func(a *Arguments, value string) {
			first, _, several := strings.Cut(value, ",")
			if several {
				a.note("--target: only " + first + ", the first, is built; the others would not be pushed")
			}
			if before := a.values["KANIKO_TARGET"]; len(before) > 0 && before[0] != "" {
				a.note("--target: only " + before[0] + ", the first, is built; the others would not be pushed")
				return
			}
			a.set("KANIKO_TARGET", "target", first, false)
		},
		"credential-helpers": func(a *Arguments, value string) {
			for item := range strings.SplitSeq(cmp.Or(value, helperNone), ",") {
				a.set("KANIKO_CREDENTIAL_HELPERS", "credential-helpers", item, true)
			}
		},
		"log-format": func(a *Arguments, value string) {
			if value == "color" {
				value = string(LogText)
			}
			a.set("KANIKO_LOG_FORMAT", "log-format", value, false)
		},
		"verbosity": func(a *Arguments, value string) {
			switch value {
			case "fatal", "panic":
				value = string(Error)
			case "warning":
				value = string(Warn)
			}
			a.set("KANIKO_VERBOSITY", "verbosity", value, false)
		},
	}
}

// withoutVariable lists kaniko's flags that no variable has the name of.
func withoutVariable() []Flag {
	platform := func(a *Arguments, value string) { a.set("KANIKO_CUSTOM_PLATFORM", "customPlatform", value, false) }
	tarPath := func(a *Arguments, value string) { a.set("KANIKO_TAR_PATH", "tarPath", value, false) }
	runLayers := func(a *Arguments, value string) {
		if value == "false" {
			a.note("--cache-run-layers=false: every layer is made anew, as by KANIKO_NO_CACHE=true")
			a.set("KANIKO_NO_CACHE", "cache-run-layers", "true", true)
		}
	}
	const (
		rooted  = "a build leaves the container's root as it was"
		one     = "there is one way to find what a RUN changed, exact and without reading every file"
		varRun  = "/var/run is treated as every other path, as BuildKit does; what a mount hides there is not in the image"
		reached = "stages that the target does not need are never built"
	)
	list := []Flag{
		{Name: "customPlatform", Variable: "KANIKO_CUSTOM_PLATFORM", Kind: KindValue, Note: "The old name of --custom-platform.", apply: platform},
		{Name: "tarPath", Variable: "KANIKO_TAR_PATH", Kind: KindValue, Note: "The old name of --tar-path.", apply: tarPath},
		{Name: "cache-run-layers", Variable: "KANIKO_NO_CACHE", Kind: KindBool, Note: "true has no meaning here, RUN layers are always cached with --cache; false is KANIKO_NO_CACHE=true.", apply: runLayers},
		{Name: "cache-copy-layers", Kind: KindBool, Note: "COPY and ADD layers are always cached with --cache"},
		{Name: "compressed-caching", Kind: KindBool, Note: "layers are never held in memory, neither compressed nor uncompressed"},
		{Name: "snapshot-mode", Kind: KindValue, Note: one},
		{Name: "snapshotMode", Kind: KindValue, Note: one},
		{Name: "use-new-run", Kind: KindBool, Note: one},
		{Name: "cleanup", Kind: KindBool, Note: rooted},
		{Name: "pre-cleanup", Kind: KindBool, Note: "the files of the image that the builder runs in are never part of what is built"},
		{Name: "preserve-context", Kind: KindBool, Note: rooted},
		{Name: "ignore-var-run", Kind: KindBool, Note: varRun},
		{Name: "whitelist-var-run", Kind: KindBool, Note: varRun},
		{Name: "skip-unused-stages", Kind: KindBool, Note: reached},
		{Name: "force-build-metadata", Kind: KindBool, Note: "metadata instructions are always in the image's configuration and history"},
		{Name: "image-fs-extract-retry", Kind: KindValue, Note: "an image is unpacked from verified blobs on disk; what is retried is the download, by --image-download-retry"},
		{Name: "azure-container-registry-config", Kind: KindValue, Note: "credentials for Azure come from the environment or the docker configuration"},
		{
			Name: "single-snapshot", Kind: KindBool, Refused: true,
			Note: "not supported: every instruction is a layer, and what one removes stays in the layer below; build in one stage and COPY --from it into another",
		},
		{Name: "materialize", Kind: KindBool, Refused: true, Note: "not supported: " + rooted},
	}
	for i := range list {
		list[i].Kaniko = true
	}
	return list
}

// warmerFlags are those of kaniko's warmer, with its own letters.
func warmerFlags() []Flag {
	letters := map[string]string{"image": "i", "cache-dir": "c", "dockerfile": "d", "verbosity": "v"}
	list := slices.Concat(Flags(), generalFlags())
	for i := range list {
		f := &list[i]
		if f.Name != "help" {
			f.Short = letters[f.Name]
		}
		if f.Name == "force" {
			*f = Flag{Name: "force", Short: "f", Kind: KindBool, Kaniko: true, Note: "what a tag means is asked of the registry every time, so nothing in the directory is out of date"}
		}
	}
	return list
}

// WarmerFlags lists those of the warmer's flags that are not the executor's, or have other letters.
func WarmerFlags() []Flag {
	return slices.DeleteFunc(warmerFlags(), func(f Flag) bool {
		return f.Short == "" || f.Name == "verbosity" || f.Name == "help"
	})
}

// LoginFlags lists those of login alone.
func LoginFlags() []Flag {
	return []Flag{
		{Name: "username", Short: "u", Kind: KindValue, Kaniko: true, apply: func(a *Arguments, v string) { a.Username = v }},
		{Name: "password", Short: "p", Kind: KindValue, Kaniko: true, apply: func(a *Arguments, v string) { a.Password = v }},
		{Name: "password-stdin", Kind: KindBool, Kaniko: true, apply: func(a *Arguments, v string) { a.PasswordStdin = v == "true" }},
	}
}

func generalFlags() []Flag {
	command := func(c Command) func(*Arguments, string) {
		return func(a *Arguments, value string) {
			if value == "true" {
				a.Command = c
			}
		}
	}
	return []Flag{
		{Name: "help", Short: "h", Kind: KindBool, Kaniko: true, apply: command(CommandHelp)},
		{Name: "version", Kind: KindBool, apply: command(CommandVersion)},
	}
}

// meaningless gives kaniko's flag that a variable has the name of, if that is no variable here.
func meaningless(variable string) (Flag, bool) {
	for _, f := range withoutVariable() {
		if Prefix+"_"+strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")) == variable {
			return f, true
		}
	}
	return Flag{}, false
}
