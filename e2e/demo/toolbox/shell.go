// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// token is a word, or an operator.
type token struct {
	text     string
	operator bool
}

// shell runs a script; every command must succeed for the script to go on, as with `set -e`.
func shell(script string) error {
	tokens, err := split(script)
	if err != nil {
		return err
	}
	var line []token
	for _, t := range append(tokens, token{";", true}) {
		if !t.operator || t.text == ">" || t.text == ">>" {
			line = append(line, t)
			continue
		}
		if len(line) > 0 {
			if err := execute(line); err != nil {
				return err
			}
		}
		line = nil
	}
	return nil
}

// execute runs one command with its redirections.
func execute(line []token) (err error) {
	var words []string
	out := io.Writer(os.Stdout)
	for i := 0; i < len(line); i++ {
		if !line[i].operator {
			words = append(words, line[i].text)
			continue
		}
		if i+1 == len(line) || line[i+1].operator {
			return fmt.Errorf("%s wants a file name", line[i].text)
		}
		mode := os.O_TRUNC
		if line[i].text == ">>" {
			mode = os.O_APPEND
		}
		i++
		f, err := os.OpenFile(line[i].text, os.O_CREATE|os.O_WRONLY|mode, 0o644)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out = f
	}
	if len(words) == 0 {
		return nil
	}
	c, ok := commands()[words[0]]
	if !ok {
		return fmt.Errorf("%s: not found", words[0])
	}
	if err := c(words[1:], out); err != nil {
		return fmt.Errorf("%s: %w", words[0], err)
	}
	return nil
}

// split cuts a script into words, with quotes removed and variables replaced, and operators.
func split(script string) ([]token, error) {
	var tokens []token
	for script = strings.TrimLeft(script, " \t"); script != ""; script = strings.TrimLeft(script, " \t") {
		if operator := operatorAt(script); operator != "" {
			tokens, script = append(tokens, token{operator, true}), script[len(operator):]
			continue
		}
		word, rest, err := wordAt(script)
		if err != nil {
			return nil, err
		}
		tokens, script = append(tokens, token{word, false}), rest
	}
	return tokens, nil
}

func operatorAt(s string) string {
	for _, operator := range []string{"&&", ">>", ">", ";", "\n"} {
		if strings.HasPrefix(s, operator) {
			return operator
		}
	}
	return ""
}

func wordAt(s string) (word, rest string, err error) {
	var b strings.Builder
	for s != "" && s[0] != ' ' && s[0] != '\t' && operatorAt(s) == "" {
		switch quote := s[0]; quote {
		case '\'', '"':
			end := strings.IndexByte(s[1:], quote)
			if end < 0 {
				return "", "", fmt.Errorf("a quote is not closed")
			}
			text := s[1 : 1+end]
			if quote == '"' {
				text = os.ExpandEnv(text)
			}
			b.WriteString(text)
			s = s[end+2:]
		default:
			end := strings.IndexAny(s, " \t'\"&>;\n")
			if end < 0 {
				end = len(s)
			}
			if end == 0 { // a single & is no operator here
				return "", "", fmt.Errorf("%q is not understood", s[:1])
			}
			b.WriteString(os.ExpandEnv(s[:end]))
			s = s[end:]
		}
	}
	return b.String(), s, nil
}
