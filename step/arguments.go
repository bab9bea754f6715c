// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"go.uber.org/zap"

	"github.com/kaniko-go/kaniko-go/builder"
	"github.com/kaniko-go/kaniko-go/step/config"
)

// configured reads the command line and the environment. Where there is nothing
// more to do it returns no configuration but the exit code.
func configured(argv []string) (*config.Config, *zap.Logger, int) {
	// Until there is a configured log the problems are lines, and the cause is the last.
	early := newLogger(config.Log{})
	args, err := config.ParseArguments(argv)
	if err != nil && (args.Command == config.CommandRun || args.Command == config.CommandLogin) {
		return nil, nil, complain(early, err)
	}
	switch args.Command {
	case config.CommandHelp:
		help(os.Stdout)
		return nil, nil, 0
	case config.CommandVersion:
		fmt.Fprintln(os.Stdout, "kaniko-go "+version)
		return nil, nil, 0
	case config.CommandLogin:
		if err := login(args, os.Stdin); err != nil {
			return nil, nil, complain(early, err)
		}
		early.Info("credentials for " + args.Registry + " are in " + config.LoginFile())
		return nil, nil, 0
	case config.CommandRun:
	}
	cfg, err := args.Load()
	if err != nil {
		return nil, nil, complain(early, err)
	}
	log := newLogger(cfg.Log)
	for _, note := range args.Notes() {
		log.Warn(note)
	}
	return cfg, log, 0
}

// complain reports configuration errors, all of them.
func complain(log *zap.Logger, err error) int {
	lines := strings.Split(err.Error(), "\n")
	leave(log, strings.Join(lines, "; "))
	for _, line := range lines {
		log.Error(line)
	}
	if len(lines) > 1 {
		log.Error(fmt.Sprintf("%d problems with the configuration: %s", len(lines), strings.Join(lines, "; ")))
	}
	return builder.ExitConfig
}

// help lists the flags.
func help(w io.Writer) {
	fmt.Fprintln(w, `kaniko-go builds a container image from a Dockerfile inside its own container and pushes it.

Every setting is a variable, and a flag that sets it: --some-flag is KANIKO_SOME_FLAG. A list's flag may be repeated.
Besides: login REGISTRY -u USER (-p PASSWORD | --password-stdin); push LAYOUT-OR-TARBALL -d REFERENCE; index REPOSITORY@DIGEST ... -d REFERENCE; version; help.
Under the name "warmer" it fetches images (--image, or what --dockerfile needs) into --cache-dir.`)
	fmt.Fprintln(w)
	for _, f := range config.Flags() {
		name := "    --" + f.Name
		if f.Short != "" {
			name = "-" + f.Short + ", --" + f.Name
		}
		text := f.Desc
		switch {
		case text == "" && f.Variable == "" && !f.Refused:
			text = "Accepted without meaning: " + f.Note + "."
		case text == "":
			text = f.Note
		}
		fmt.Fprintf(w, "  %s (%s)\n        %s\n", name, f.Kind, text)
	}
}

// login puts a user's name and password where builds look for them.
func login(args *config.Arguments, stdin io.Reader) error {
	password := args.Password
	if args.PasswordStdin {
		b, err := io.ReadAll(io.LimitReader(stdin, 1<<20))
		if err != nil {
			return fmt.Errorf("login: reading the password: %w", err)
		}
		password = strings.TrimRight(string(b), "\r\n")
	}
	switch {
	case args.Registry == "":
		return errors.New("login: name the registry")
	case args.Username == "" || password == "":
		return errors.New("login: give --username, and --password or --password-stdin")
	case config.LoginFile() == "":
		return errors.New("login: set DOCKER_CONFIG, the directory that config.json is written to")
	}
	return addLogin(config.LoginFile(), args.Registry, args.Username, password)
}
