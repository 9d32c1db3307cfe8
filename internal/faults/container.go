package faults

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/ory/dockertest/v3"
	"github.com/ory/dockertest/v3/docker"
)

const (
	// containerLabel marks our containers.
	containerLabel = "holdfast-faults"
	// abandoned is how old a container is whose harness is gone.
	abandoned = 6 * time.Hour
)

// A container is a database server of our own, durable as its image makes it, with
// an address that outlives restarts.
type container struct {
	pool    *dockertest.Pool
	id      string
	address string // host:port
	stop    docker.Signal
}

// An image is what to run.
type image struct {
	repository, tag, port string
	env, cmd              []string
	stop                  docker.Signal // ends the server without waiting for its clients
}

// runContainer starts a server. It removes containers of harnesses that were killed.
func runContainer(img image) (*container, error) {
	pool, err := dockertest.NewPool("")
	if err != nil {
		return nil, err
	}
	if err := pool.Client.Ping(); err != nil {
		return nil, fmt.Errorf("no Docker here: %w", err)
	}
	sweepContainers(pool)
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	resource, err := pool.RunWithOptions(&dockertest.RunOptions{
		Repository: img.repository, Tag: img.tag, Env: img.env, Cmd: img.cmd,
		Labels: map[string]string{containerLabel: strconv.FormatInt(time.Now().Unix(), 10)},
		// A port of the engine's choice would change with each start.
		PortBindings: map[docker.Port][]docker.PortBinding{docker.Port(img.port): {{HostIP: host, HostPort: port}}},
	})
	if err != nil {
		return nil, err
	}
	return &container{pool: pool, id: resource.Container.ID, address: address, stop: img.stop}, nil
}

func sweepContainers(pool *dockertest.Pool) {
	list, err := pool.Client.ListContainers(docker.ListContainersOptions{
		All: true, Filters: map[string][]string{"label": {containerLabel}},
	})
	if err != nil {
		return // what is left over is not in the way
	}
	for _, c := range list {
		if time.Since(time.Unix(c.Created, 0)) > abandoned {
			pool.Client.RemoveContainer(docker.RemoveContainerOptions{ID: c.ID, Force: true, RemoveVolumes: true})
		}
	}
}

// restart stops the server in good order and starts it again.
func (c *container) restart(ctx context.Context) error {
	err := c.pool.Client.KillContainer(docker.KillContainerOptions{ID: c.id, Signal: c.stop})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, databaseWait)
	defer cancel()
	if _, err := c.pool.Client.WaitContainerWithContext(c.id, ctx); err != nil {
		return err
	}
	return c.start(ctx)
}

// kill ends the server as a power cut would.
func (c *container) kill() error {
	return c.pool.Client.KillContainer(docker.KillContainerOptions{ID: c.id, Signal: docker.SIGKILL})
}

func (c *container) start(ctx context.Context) error {
	for {
		err := c.pool.Client.StartContainer(c.id, nil)
		if _, running := errors.AsType[*docker.ContainerAlreadyRunning](err); err == nil || running {
			return nil
		}
		if pause(ctx, 200*time.Millisecond) != nil {
			return err
		}
	}
}

func (c *container) remove() error {
	err := c.pool.Client.RemoveContainer(docker.RemoveContainerOptions{ID: c.id, Force: true, RemoveVolumes: true})
	c.pool.Client.HTTPClient.CloseIdleConnections()
	return err
}
