// Prints what `docker compose [--env-file FILE]... -f FILE...` makes of these files, as JSON: its own loader merges them,
// fills in the environment, checks them against the Compose specification's schema and resolves every path.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

type several []string

func (list *several) String() string { return fmt.Sprint(*list) }

func (list *several) Set(value string) error {
	*list = append(*list, value)
	return nil
}

func main() {
	var envFiles, files several
	flag.Var(&envFiles, "env-file", "")
	flag.Var(&files, "f", "")
	flag.Parse()
	if err := run(envFiles, files); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(envFiles, files []string) error {
	options, err := cli.NewProjectOptions(files,
		cli.WithEnvFiles(envFiles...),
		cli.WithDotEnv,
	)
	if err != nil {
		return err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return err
	}
	document, err := project.MarshalJSON()
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(document)
	return err
}
