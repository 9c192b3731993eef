// Package client holds the subcommands of causeway that ask a running agent,
// hub or `causeway up`: get, explain, status and request. They are thin: what
// they show comes from the query API (api/causeway/v1), and request sends real
// HTTP to the Envoy that the query API names.
//
// Commands print to the writers that they are given and return errors for main
// to print. An error of this package says what to do next, and names what exists
// where a name was wrong.
//
// The JSON of -o json is that of Protocol Buffers (ProtoJSON) for the API's
// messages: lowerCamelCase names, 64-bit integers as strings, enums by name, and
// fields that are empty are there too. The one exception is request, whose shape
// is its own; see Answers. -o yaml is the same as YAML.
package client
