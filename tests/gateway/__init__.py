"""
The gateway as a process, between clients and scripted instances on real sockets.

What a gateway has to stand, and where it is asserted, at the instance's side wherever there is one. Beside
these, ``bench.dispatch`` measures the same under load.

1. Smuggling: ``test_heads``: an_ambiguous_head_is_refused_and_reaches_no_instance,
   a_bad_chunk_breaks_the_request_off
2. Upgrades: ``test_bodies``: a_websocket_is_a_tunnel_until_either_side_ends_it,
   bytes_behind_a_refused_upgrade_are_the_next_request; ``test_tunnels``
3. Stale connections: ``test_again``: a_stale_connection_is_not_the_clients_concern,
   a_get_survives_a_reset_of_a_kept_connection, a_small_answer_that_breaks_off_is_asked_for_again,
   a_post_is_never_sent_twice
4. Headers of one hop: ``test_heads``: hop_by_hop_headers_end_at_the_gateway, a_client_cannot_say_who_it_is
5. Events and back-pressure: ``test_tunnels``: events_arrive_while_the_stream_goes_on,
   a_reader_that_stops_blocks_the_instance, and by that name in ``test_http2``
6. Clients that go: ``test_faults``: after_ten_thousand_aborts_nothing_is_left; ``test_http2``:
   a_stream_given_up_gives_its_place_back; every_sequence_keeps_the_rules in
   ``engine/src/dispatch/properties.rs``
7. Expectations: ``test_bodies``: continue_is_said_once_an_instance_asks,
   an_early_no_to_an_expectation_needs_no_body, nobody_is_told_to_continue_while_the_request_waits
8. Places: ``test_places``: five_hundred_clients_never_take_more_places_than_there_are; ``test_workers``:
   places_are_counted_across_workers; that none is idle while one waits: ``properties.rs``
9. A fast failer: ``test_faults``: an_instance_that_fails_fast_gets_hardly_any_requests_until_it_is_well
10. A frozen instance: ``test_faults``: a_frozen_instance_delays_only_the_requests_it_has; ``test_hedges``:
    a_second_try_answers_for_a_frozen_one
11. Coming and going: ``test_faults``: instances_come_and_go_without_an_error (sixty changes);
    ``test_places``: another_process_with_the_same_pid_is_not_the_instance
12. Storms of retries: ``test_retries``: a_storm_of_retries_keeps_to_the_budget,
    no_instance_is_asked_twice_and_the_last_answer_is_the_clients, no_second_try_begins_after_the_deadline,
    a_body_that_cannot_be_kept_is_sent_once
13. Overload: ``test_faults``: in_overload_no_work_is_done_for_those_who_have_gone
14. Abuse: ``test_abuse``, all of it
15. gRPC: ``test_grpc``, all of it
"""
