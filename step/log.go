// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/kaniko-go/kaniko-go/step/config"
)

// newLogger writes to standard error: the bare message for people, or everything as JSON.
func newLogger(c config.Log) *zap.Logger {
	level := zapcore.InfoLevel
	switch c.Verbosity {
	case config.Error:
		level = zapcore.ErrorLevel
	case config.Warn:
		level = zapcore.WarnLevel
	case config.Debug, config.Trace:
		level = zapcore.DebugLevel
	case config.Info:
	}
	sink := zapcore.Lock(os.Stderr)
	if c.LogFormat == config.LogJSON {
		enc := zap.NewProductionEncoderConfig()
		enc.EncodeTime = zapcore.RFC3339NanoTimeEncoder
		enc.TimeKey = "time"
		enc.EncodeDuration = zapcore.SecondsDurationEncoder
		return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(enc), sink, level))
	}
	enc := zapcore.EncoderConfig{MessageKey: "msg", LevelKey: "level", EncodeLevel: warnings, ConsoleSeparator: " "}
	if c.LogTimestamp {
		enc.TimeKey = "time"
		enc.EncodeTime = func(t time.Time, out zapcore.PrimitiveArrayEncoder) {
			out.AppendString(t.UTC().Format("2006-01-02T15:04:05.000Z"))
		}
	}
	return zap.New(plain{zapcore.NewCore(zapcore.NewConsoleEncoder(enc), sink, level)})
}

// warnings names the one level whose messages do not say it themselves.
func warnings(l zapcore.Level, out zapcore.PrimitiveArrayEncoder) {
	if l == zapcore.WarnLevel {
		out.AppendString("warning:")
	}
}

// plain leaves out the fields: the message says all that people need.
type plain struct{ zapcore.Core }

func (p plain) With([]zapcore.Field) zapcore.Core { return p }

func (p plain) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if p.Enabled(e.Level) {
		return ce.AddCore(e, p)
	}
	return ce
}

func (p plain) Write(e zapcore.Entry, _ []zapcore.Field) error { return p.Core.Write(e, nil) }
