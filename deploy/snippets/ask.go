// Command ask is a service in Go that asks tollgate itself, without Envoy: it waits for a deadline at most, lets pass
// what nobody decided, and pays for work when it knows what it cost. To be copied from; not a library.
//
// In a module of your own (go mod init; go mod tidy):
//
//	tollgate --policies deploy/snippets/policy.yaml
//	go run ask.go 127.0.0.1:8081 acme
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	// How long a request may wait for a decision: more than tollgate gives its store (`store.deadline`), and less than
	// a user notices.
	deadline = 50 * time.Millisecond

	// How long settling may take. Nobody waits for it.
	settleDeadline = time.Second

	domain = "snippets"
)

// Decision is what became of a request.
type Decision struct {
	// Whether to go on.
	Passes bool
	// When it is worth asking again; 0: never, or now.
	RetryAfter time.Duration
	// False: no answer came in time, so it passes.
	Decided bool
}

func (d Decision) String() string {
	switch {
	case d.Passes && d.Decided:
		return "passes"
	case d.Passes:
		return "passes, undecided"
	case d.RetryAfter > 0:
		return fmt.Sprintf("denied, retry after %.3f s", d.RetryAfter.Seconds())
	default:
		return "denied"
	}
}

// Entries are those of a descriptor: key, value, key, value.
type Entries []string

// Limiter asks tollgate over one connection per address; one for the whole process.
type Limiter struct {
	service rls.RateLimitServiceClient
}

// NewLimiter connects at the first request, and again whenever the connection is lost. dns:///name:8081 asks all
// replicas in turn.
func NewLimiter(address string) (*Limiter, error) {
	connection, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`))
	if err != nil {
		return nil, err
	}
	return &Limiter{service: rls.NewRateLimitServiceClient(connection)}, nil
}

// Ask asks whether this may pass, at a cost of one hit.
func (l *Limiter) Ask(ctx context.Context, entries Entries) Decision {
	return l.decide(ctx, entries, 1, deadline)
}

// Peek asks whether anything is left. It charges nothing.
func (l *Limiter) Peek(ctx context.Context, entries Entries) Decision {
	return l.decide(ctx, entries, 0, deadline)
}

// Settle charges what was spent already, so there is nothing to decide. It is never sent twice: a call that was cut off
// may have been charged.
func (l *Limiter) Settle(entries Entries, cost uint64) {
	// Hits of 0 would be a peek. The context is not that of the request: who gave up has to pay all the same.
	if cost > 0 && !l.decide(context.Background(), entries, cost, settleDeadline).Decided {
		log.Printf("a cost of %d may not have been charged to %v", cost, entries)
	}
}

func (l *Limiter) decide(ctx context.Context, entries Entries, hits uint64, within time.Duration) Decision {
	// It covers connecting, and tollgate is told of it: it answers before its caller gives up.
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	descriptor := &common.RateLimitDescriptor{HitsAddend: wrapperspb.UInt64(hits)}
	for i := 0; i+1 < len(entries); i += 2 {
		entry := &common.RateLimitDescriptor_Entry{Key: entries[i], Value: entries[i+1]}
		descriptor.Entries = append(descriptor.Entries, entry)
	}
	response, err := l.service.ShouldRateLimit(ctx, &rls.RateLimitRequest{
		Domain:      domain,
		Descriptors: []*common.RateLimitDescriptor{descriptor},
	})
	if err != nil {
		// Fails open: limits protect the service, they must not be what stops it.
		log.Printf("passes without a decision: %v", err)
		return Decision{Passes: true}
	}
	if response.GetOverallCode() != rls.RateLimitResponse_OVER_LIMIT {
		return Decision{Passes: true, Decided: true}
	}
	return Decision{RetryAfter: retryAfter(response), Decided: true}
}

// retryAfter is when all descriptors would pass that are over their limit: to the millisecond by the metadata, else, where
// tollgate is set to send none, by whole seconds. 0: never.
func retryAfter(response *rls.RateLimitResponse) time.Duration {
	told := response.GetDynamicMetadata().GetFields()["descriptors"].GetListValue().GetValues()
	var latest time.Duration
	for i, status := range response.GetStatuses() {
		if status.GetCode() != rls.RateLimitResponse_OVER_LIMIT {
			continue
		}
		wait := status.GetDurationUntilReset().AsDuration()
		if i < len(told) {
			millis, known := told[i].GetStructValue().GetFields()["retry_after_ms"]
			if !known {
				return 0
			}
			wait = time.Duration(millis.GetNumberValue()) * time.Millisecond
		}
		latest = max(latest, wait)
	}
	return latest
}

// serve does a request of a tenant, and work whose cost is known only afterwards.
func serve(ctx context.Context, limiter *Limiter, tenant string) {
	fmt.Println("request:", limiter.Ask(ctx, Entries{"tenant", tenant}))
	budget := Entries{"tenant", tenant, "budget", "tokens"}
	left := limiter.Peek(ctx, budget)
	if !left.Passes {
		fmt.Println("work:", left)
		return
	}
	cost := work()
	limiter.Settle(budget, cost)
	fmt.Printf("work: %s, cost %d\n", left, cost)
}

// work stands for what is worth limiting; it says what it cost.
func work() uint64 {
	return 80
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: ask ADDRESS TENANT")
	}
	limiter, err := NewLimiter(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	serve(context.Background(), limiter, os.Args[2])
}
