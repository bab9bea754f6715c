// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"fmt"
	"strings"

	"github.com/rogpeppe/go-internal/txtar"
)

// row is one entry of a table of cases: the end of its name, and what is put into the table's Dockerfile. A text that begins
// with "!fails" is a case that both builders must refuse with what follows on that line.
type row struct{ name, text string }

// made is a case of a Dockerfile and its context, which is given as "path: content" lines.
func made(name, dockerfile, setup string, context ...string) testCase {
	options := ""
	c := testCase{name: name}
	add := func(path, content string) {
		if content != "" {
			c.members = append(c.members, txtar.File{Name: path, Data: []byte(content)})
		}
	}
	if rest, ok := strings.CutPrefix(dockerfile, "!fails "); ok {
		phrase, text, _ := strings.Cut(rest, "\n")
		options, dockerfile = "fails "+phrase+"\n", text
	}
	add("Dockerfile", dockerfile)
	add("!options", options)
	add("!setup", setup)
	for _, path := range context {
		name, content, ok := strings.Cut(path, ": ")
		if !ok {
			content = name
		}
		add(name, content+"\n")
	}
	return c
}

// tables are cases that are made, not written: many forms of one thing.
func tables() []testCase {
	var list []testCase
	list = append(list, expansions()...)
	list = append(list, destinations()...)
	list = append(list, metadata()...)
	list = append(list, ownership()...)
	return list
}

// expansions are the forms of variables, seen in a label.
func expansions() []testCase {
	list := make([]testCase, 0, 64)
	for _, r := range []row{
		{"plain", `$set`},
		{"braces", `${set}`},
		{"unset", `[$unset][${unset}]`},
		{"default-unset", `${unset:-d}`},
		{"default-empty", `${empty:-d}`},
		{"default-empty-without-colon", `[${empty-d}]`},
		{"default-unset-without-colon", `${unset-d}`},
		{"default-set", `${set:-d}`},
		{"alternative-set", `${set:+a}`},
		{"alternative-empty", `[${empty:+a}]`},
		{"alternative-empty-without-colon", `${empty+a}`},
		{"alternative-unset", `[${unset+a}]`},
		{"error-set", `${set:?message}`},
		{"error-empty-without-colon", `[${empty?message}]`},
		{"nested-default", `${unset:-${empty:-${set}}}`},
		{"prefix", `${path#*/}`},
		{"prefix-longest", `${path##*/}`},
		{"suffix", `${path%/*}`},
		{"suffix-longest", `${path%%/*}`},
		{"pattern-question", `${path#?}`},
		{"pattern-no-match", `${path#zzz}`},
		{"pattern-escaped-star", `${star#\*}`},
		{"pattern-brackets", `${path#[a]}`},
		{"replace-first", `${path/b/X}`},
		{"replace-all", `${path//\//:}`},
		{"replace-with-nothing", `${path/b/}`},
		{"replace-nested", `${path/b/${set}}`},
		{"single-quotes", `'$set'`},
		{"double-quotes", `"$set and \"more\""`},
		{"escaped-dollar", `\$set`},
		{"dollar-alone", `a$ b`},
		{"dollar-digit", `$1x`},
		{"adjacent", `$set$set${set}x`},
		{"name-boundary", `$set-x $setx`},
		{"backslash", `a\\b\c`},
		{"quotes-inside", `a'b c'd"e f"`},
		{"unicode", `ä${set}€`},
		{"empty-name", "!fails bad substitution\nFROM scratch\nLABEL v=${}\n"},
		{"error-unset", "!fails message\nFROM scratch\nLABEL v=${unset:?message}\n"},
		{"error-unset-default-text", "!fails unset\nFROM scratch\nLABEL v=${unset?}\n"},
		{"colon-hash", "!fails unsupported modifier\nFROM scratch\nENV a=b\nLABEL v=${a:#x}\n"},
		{"unclosed", "!fails failed to process\nFROM scratch\nLABEL v=${a\n"},
		{"unclosed-quote", "!fails unexpected end of statement\nFROM scratch\nLABEL v=\"a\n"},
	} {
		text := r.text
		if !strings.HasPrefix(text, "!fails") {
			if strings.Contains(text, " ") && !strings.HasPrefix(text, `"`) && !strings.Contains(text, "'") {
				text = `"` + text + `"`
			}
			text = "FROM scratch\nENV set=value empty= path=a/b/c/b star=*x\nLABEL v=" + text + "\n"
		}
		list = append(list, made("expand-"+r.name, text, ""))
	}
	for _, r := range []row{
		{"add-and-copy", "COPY $dir/${file} /$dest/\nADD ${file} $dest2\n"},
		{"chown-chmod", "COPY --chown=${u}:$g --chmod=$m a /x\n"},
		{"env", "ENV a=1 b=$a\nENV a=2 b=$a\nENV $dir=$file\n"},
		{"label-key", "LABEL $dir=$file \"${dir}.$file\"=x\n"},
		{"expose", "ENV ports=\"80 443/udp\"\nEXPOSE $ports 1-$n\n"},
		{"user", "USER ${u}:$g\n"},
		{"volume", "VOLUME /$dir ${file}\n"},
		{"volume-json", "VOLUME [\"/$dir\", \"${file}\"]\n"},
		{"workdir", "WORKDIR /$dir\nWORKDIR ${file}\n"},
		{"stopsignal", "STOPSIGNAL $n\n"},
		{"not-in-cmd", "CMD [\"$dir\"]\nENTRYPOINT $dir\n"},
		{"not-in-healthcheck", "HEALTHCHECK CMD test $dir\n"},
		{"not-in-shell", "SHELL [\"$dir\", \"-c\"]\nCMD x\n"},
		{"not-in-onbuild", "ONBUILD RUN echo $dir\n"},
		{"not-in-maintainer", "MAINTAINER $dir\n"},
		{"copy-heredoc", "COPY <<A <<'B' /h/\n$dir ${file}\nA\n$dir\nB\n"},
		{"arg-default", "ARG x=$dir\nARG y=${x}-$file\nLABEL y=$y\n"},
	} {
		list = append(list, made("expand-in-"+r.name, "FROM scratch\nENV dir=sub file=a dest=d dest2=/e u=5 g=6 m=0600 n=9\n"+r.text, "", "a", "sub/a: below"))
	}
	return list
}

// destinations are the forms of a COPY's destination for what is copied; the stage has a directory, a file, and links.
func destinations() []testCase {
	sources := []row{
		{"file", "file"},
		{"directory", "tree"},
		{"several", "file other"},
		{"link-to-file", "link"},
		{"link-to-directory", "dirlink"},
		{"wildcard", "f*"},
		{"wildcard-directory", "tre?"},
	}
	targets := []row{
		{"new", "/new"},
		{"new-slash", "/new/"},
		{"deep", "/x/y/new"},
		{"existing", "/dir"},
		{"existing-slash", "/dir/"},
		{"dot", "."},
		{"dot-slash", "./"},
		{"relative", "rel"},
		{"dir-dot", "/dir/."},
		{"through-link", "/dirlink/new"},
		{"link", "/dirlink"},
		{"link-slash", "/dirlink/"},
		{"dangling", "/dangling"},
		{"dangling-slash", "/dangling/"},
		{"parent", "../up"},
		{"root", "/"},
		{"over-file", "/old"},
		{"filelink", "/filelink"},
		{"out", "/out/hosts"},
	}
	// What cannot be done, with BuildKit's words.
	refused := map[string]string{
		"directory-over-file": "cannot copy to non-directory", "directory-filelink": "cannot copy to non-directory",
		"link-to-directory-over-file": "cannot copy to non-directory", "link-to-directory-filelink": "cannot copy to non-directory",
		"wildcard-directory-over-file": "cannot copy to non-directory", "wildcard-directory-filelink": "cannot copy to non-directory",
	}
	var list []testCase
	for _, s := range sources {
		for _, d := range targets {
			name := s.name + "-" + d.name
			// Every target for the plain sources; for the others those where they may behave otherwise.
			if s.name != "file" && s.name != "directory" && strings.Contains("deep dot-slash dir-dot relative parent root out link-slash through-link", d.name) {
				continue
			}
			text := fmt.Sprintf("FROM scratch\nCOPY stage /\nWORKDIR /work\nCOPY %s %s\n", s.text, d.text)
			if phrase := refused[name]; phrase != "" {
				text = "!fails " + phrase + "\n" + text
			}
			list = append(list, made("to-"+name, text,
				"ln -s file link; ln -s tree dirlink; cd stage; mkdir dir; ln -s dir dirlink; ln -s old filelink; ln -s missing/deeper dangling; ln -s ../../../etc out; mkdir etc; chmod 0711 dir",
				"file: f", "other: o", "tree/a: a", "tree/sub/b: b", "stage/old: old"))
		}
	}
	return list
}

// metadata are the instructions that change the configuration only.
func metadata() []testCase {
	var list []testCase
	for _, r := range []row{
		{"env-several", `ENV a=1 b="two words" c=three\ words d='$x'`},
		{"env-legacy", `ENV a  rest of  line`},
		{"env-replace", "ENV a=1 b=2\nENV a=3"},
		{"env-path", "ENV PATH=/x:$PATH"},
		{"env-empty-value", `ENV a= b=""`},
		{"env-continued", "ENV a=1 \\\n    b=2 \\\n    # comment\n    c=3"},
		{"env-equals-in-value", `ENV a=b=c`},
		{"env-missing-value", "!fails must have two arguments\nFROM scratch\nENV a"},
		{"env-blank-name", "!fails can not be blank\nFROM scratch\nENV =x"},
		{"label-several", `LABEL a=1 "b c"="d e" f=g\ h`},
		{"label-legacy", `LABEL a rest of line`},
		{"label-multi-line", "LABEL a=\"x \\\n y\""},
		{"label-replace", "LABEL a=1\nLABEL a=2 b=3"},
		{"expose-proto", "EXPOSE 80 443/TCP 53/udp 9/sctp"},
		{"expose-range", "EXPOSE 8000-8003/udp 7"},
		{"expose-host", "EXPOSE 127.0.0.1:80:8080"},
		{"expose-bad-proto", "!fails invalid proto\nFROM scratch\nEXPOSE 80/icmp"},
		{"expose-bad-port", "!fails nope\nFROM scratch\nEXPOSE nope"},
		{"expose-range-reversed", "!fails 9-8\nFROM scratch\nEXPOSE 9-8"},
		{"volume-words", "VOLUME /a /b /a"},
		{"volume-json", `VOLUME ["/a b", "c"]`},
		{"volume-bad-json", `VOLUME ["/a"`},
		{"volume-none", "!fails VOLUME requires at least one argument\nFROM scratch\nVOLUME"},
		{"user-name", "USER nobody:users"},
		{"user-none", "!fails USER requires exactly one argument\nFROM scratch\nUSER"},
		{"workdir-absolute", "WORKDIR /a/../b/./c/"},
		{"workdir-relative", "WORKDIR a\nWORKDIR b/../c"},
		{"workdir-parent", "WORKDIR /a/b\nWORKDIR ../../../x"},
		{"workdir-root", "WORKDIR /"},
		{"workdir-root-dots", "WORKDIR /a/.."},
		{"workdir-space", "WORKDIR \"/a b\""},
		{"workdir-space-bare", "WORKDIR /a b"},
		{"workdir-user", "USER 12:34\nWORKDIR /a/b"},
		{"workdir-user-only", "USER 12\nWORKDIR /a/b"},
		{"workdir-existing", "COPY --chmod=0700 . /a/\nUSER 7\nWORKDIR /a"},
		{"stopsignal-name", "STOPSIGNAL SIGKILL"},
		{"stopsignal-short", "STOPSIGNAL term"},
		{"stopsignal-number", "STOPSIGNAL 9"},
		{"stopsignal-rt", "STOPSIGNAL SIGRTMIN+3"},
		{"stopsignal-bad", "!fails SIGNOPE\nFROM scratch\nSTOPSIGNAL SIGNOPE"},
		{"shell", "SHELL [\"/bin/bash\", \"-c\"]\nCMD x y\nENTRYPOINT z"},
		{"shell-word", "!fails SHELL requires the arguments to be in JSON form\nFROM scratch\nSHELL /bin/bash -c"},
		{"cmd-shell", "CMD echo  \"a  b\" $c"},
		{"cmd-exec", `CMD ["a", "b c", "\u00e4\"\\"]`},
		{"cmd-empty", "CMD []"},
		{"cmd-bad-json", `CMD ["a", b]`},
		{"cmd-twice", "CMD a\nCMD b"},
		{"cmd-non-string-json", "!fails arrays must be comprised of strings only\nFROM scratch\nCMD [\"a\", 1]"},
		{"entrypoint-clears-nothing-of-own", "CMD [\"c\"]\nENTRYPOINT [\"e\"]"},
		{"entrypoint-before-cmd", "ENTRYPOINT [\"e\"]\nCMD [\"c\"]"},
		{"entrypoint-empty", "ENTRYPOINT [\"x\"]\nENTRYPOINT []"},
		{"entrypoint-shell", "ENTRYPOINT exec x"},
		{"maintainer", "MAINTAINER A B <c@d>\nENV a=b"},
		{"healthcheck-shell", "HEALTHCHECK --interval=5s --timeout=1m --start-period=1h --start-interval=2s --retries=3 CMD a b"},
		{"healthcheck-exec", `HEALTHCHECK CMD ["a", "b"]`},
		{"healthcheck-none", "HEALTHCHECK CMD a\nHEALTHCHECK NONE"},
		{"healthcheck-zero", "HEALTHCHECK --interval=0s --retries=0 CMD a"},
		{"healthcheck-short", "!fails cannot be less than 1ms\nFROM scratch\nHEALTHCHECK --interval=1us CMD a"},
		{"healthcheck-type", "!fails Unknown type\nFROM scratch\nHEALTHCHECK WHAT a"},
		{"healthcheck-negative-retries", "!fails --retries\nFROM scratch\nHEALTHCHECK --retries=-1 CMD a"},
		{"onbuild-several", "ONBUILD COPY a b\nONBUILD  RUN  x   y\nONBUILD ENV a=$b"},
		{"onbuild-onbuild", "!fails ONBUILD\nFROM scratch\nONBUILD ONBUILD RUN x"},
		{"onbuild-from", "!fails FROM isn't allowed as an ONBUILD trigger\nFROM scratch\nONBUILD FROM x"},
		{"onbuild-maintainer", "!fails MAINTAINER isn't allowed as an ONBUILD trigger\nFROM scratch\nONBUILD MAINTAINER x"},
		{"onbuild-heredoc", "ONBUILD COPY <<A /x\ncontent $b\nA"},
		{"lower-case", "env a=b\nlabel c=d\nCmd e"},
	} {
		text := r.text + "\n"
		if !strings.HasPrefix(text, "!fails") {
			text = "FROM scratch\n" + text
		}
		list = append(list, made("meta-"+r.name, text, "", "a"))
	}
	return list
}

// ownership are the forms of --chown and --chmod.
func ownership() []testCase {
	const accounts = "root:x:0:0::/:/bin/sh\nuser:x:1000:1001::/:/bin/sh\nodd:x:7:8::/:/bin/sh\n"
	var list []testCase
	for _, r := range []row{
		{"numeric", "--chown=5:6"},
		{"numeric-user", "--chown=5"},
		{"name", "--chown=user"},
		{"name-group", "--chown=user:staff"},
		{"name-numeric-group", "--chown=odd:99"},
		{"group-only", "--chown=:staff"},
		{"user-colon", "--chown=user:"},
		{"unknown-user", "--chown=nosuch"},
		{"unknown-group", "--chown=user:nosuch"},
		{"large", "--chown=2000000000:2000000001"},
		{"octal", "--chmod=640"},
		{"octal-zero", "--chmod=0"},
		{"octal-setuid", "--chmod=4755"},
		{"octal-sticky", "--chmod=01777"},
		{"symbolic", "--chmod=u=rwX,go=rX"},
		{"symbolic-plus", "--chmod=+x"},
		{"symbolic-copy", "--chmod=g=u,o="},
		{"symbolic-setgid", "--chmod=g+s"},
		{"symbolic-conditional", "--chmod=a+X"},
		{"both", "--chown=user --chmod=0711"},
	} {
		list = append(list, made("own-"+r.name, fmt.Sprintf("FROM scratch\nCOPY etc /etc\nCOPY %s tree /made/deep/\nCOPY %s exe /single/exe\n", r.text, r.text),
			"chmod 0755 exe; chmod 0600 tree/secret; chmod 2750 tree/sub; ln -s a tree/link; mkfifo tree/fifo",
			"etc/passwd: "+strings.TrimSpace(accounts), "etc/group: root:x:0:\nstaff:x:50:user", "tree/a: a", "tree/secret: s", "tree/sub/b: b", "exe: e"))
	}
	for _, r := range []row{
		{"chmod-bad-octal", "!fails invalid chmod parameter: '64a'\nFROM scratch\nCOPY --chmod=64a exe /exe\n"},
		{"chmod-too-large", "!fails invalid chmod parameter\nFROM scratch\nCOPY --chmod=10000 exe /exe\n"},
		{"chown-name-on-scratch", "!fails invalid user index\nFROM scratch\nCOPY --chown=user exe /exe\n"},
		{"chown-add", "FROM scratch\nADD --chown=3:4 --chmod=0600 exe /d/\n"},
	} {
		list = append(list, made("own-"+r.name, r.text, "", "exe: e"))
	}
	return list
}
